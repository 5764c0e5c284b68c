"""Options that commands share: each name has one meaning, one type and one help text, wherever it is offered.

Choices are `Literal` types from the packages' `choices` modules, which import nothing heavy: `--help` and completion
list them, and a wrong value is refused before torch is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from attacks_for_eval.choices import ExtractionMethod, Loss
from ownership.suspects.choices import OutputKind as OutputKindName
from watermark_training.choices import OnBadImage

DATA_HELP = (
    "Images: a folder of pictures or of .tar shards, an .npz with uint8 x, an .npy of turnmark pack, or a data set's "
    "name (digits, fashion-mnist, cifar10, ...); a slice may follow, as in cifar10:train[:10000]."
)
ARCHITECTURES = (
    "tiny", "small", "small_vgg", "small_wide", "small_deep", "small_mobilenet", "small_vit",
    "resnet18", "resnet34", "resnet50",
)  # fmt: skip
LIBRARIES = ("torchvision", "timm")


def unknown(what: str, value: str, known: Sequence[str]) -> typer.BadParameter:
    """Return the usage error for a value that is not offered, with the nearest one that is.

    >>> unknown("method", "direkt", ["direct", "averaging"]).message
    "unknown method 'direkt'. Did you mean 'direct'? Known: direct, averaging"
    """
    near = get_close_matches(value.lower(), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return typer.BadParameter(f"unknown {what} {value!r}.{hint} Known: {', '.join(known)}")


def choice(
    kind: Any,
    *names: str,
    help: str,
    what: str = "",
    argument: bool = False,
    joined: bool = False,
    without: Sequence[str] = (),
) -> Any:
    """Return the option that takes one of a `Literal`'s values.

    Args:
        kind: the `Literal` type.
        names: of the option.
        help: what it means; the values are appended.
        what: the noun for messages; the option's name if not given.
        argument: whether a value may carry arguments after colons (`prune:50`).
        joined: whether several values may be joined by a plus (`prune:50+permute`).
        without: values that this command does not offer.
    """
    values = [v for v in get_args(kind) if v not in without]
    noun = what or names[0].strip("-").replace("-", " ")

    def parse(text: str) -> str:
        for part in text.split("+") if joined else [text]:
            if (part.partition(":")[0] if argument else part) not in values:
                raise unknown(noun, part, values)
        return text

    return typer.Option(
        *names,
        help=f"{help} One of: {', '.join(values)}.",
        parser=parse,
        metavar=noun.upper().replace(" ", "_"),
        autocompletion=lambda incomplete: [v for v in values if v.startswith(incomplete)],
    )


def positive(value: float | None) -> float | None:
    """Refuse an option's number that is not above 0."""
    if value is not None and not value > 0:
        raise typer.BadParameter(f"{value} is not above 0")
    return value


def fraction(value: float) -> float:
    """Refuse an option's number that is not above 0 and at most 1."""
    if not 0 < value <= 1:
        raise typer.BadParameter(f"{value} is no fraction: above 0, at most 1")
    return value


def architecture(text: str) -> str:
    """Return an architecture's name, refused if it is neither built in nor of a library; libraries check their own."""
    library, colon, _ = text.partition(":")
    if text in ARCHITECTURES or (colon and library in LIBRARIES):
        return text
    raise unknown("architecture", text, (*ARCHITECTURES, "torchvision:MODEL", "timm:MODEL"))


def _device(text: str) -> str:
    if text.split(":")[0] in ("auto", "cpu", "cuda", "mps"):
        return text
    raise unknown("device", text, ("auto", "cpu", "cuda", "mps"))


def _named(parser: Callable[[str], str], name: str, values: Sequence[str], help: str) -> Any:
    return typer.Option(
        name,
        help=help,
        parser=parser,
        metavar=name.strip("-").upper().replace("-", "_"),
        show_default=False,
        autocompletion=lambda incomplete: [v for v in values if v.startswith(incomplete)],
    )


# models and data
Arch = Annotated[
    str | None,
    _named(
        architecture,
        "--arch",
        ARCHITECTURES,
        f"Architecture of the encoder: {', '.join(ARCHITECTURES)}, torchvision:MODEL or timm:MODEL. Needed for weights "
        "whose file does not state it.",
    ),
]
SurrogateArch = Annotated[
    str | None,
    _named(
        architecture, "--surrogate-arch", ARCHITECTURES, "Architecture of the surrogate [default: that of the victim]."
    ),
]
InitFrom = Annotated[
    Path | None,
    typer.Option(
        "--init-from",
        help="Encoder whose weights training starts from, such as a public checkpoint: a train folder, or weights of a "
        "known architecture. For a panel: the checkpoint that the victim's training started from.",
        show_default=False,
    ),
]
KeyAlpha = Annotated[
    float,
    typer.Option(
        "--key-alpha",
        help="Probability that the key test rejects for an independent suspect of any kind: above 0, at most 0.05.",
        callback=positive,
        max=0.05,
    ),
]
PanelAlpha = Annotated[
    float,
    typer.Option(
        "--alpha",
        help="Probability that the panel's tests do for an independent encoder of the panel's strata: above 0, at "
        "most 0.05.",
        callback=positive,
        max=0.05,
    ),
]
TwinsFolder = Annotated[
    Path | None,
    typer.Option(
        "--twins",
        help="Anchored folder of turnmark twins commit; the victim is the encoder that was picked.",
        show_default=False,
    ),
]
TwinsTried = Annotated[
    int,
    typer.Option(
        "--twins-tried",
        min=1,
        max=10**9,
        help="Picks of twins that you had made, abandoned ones included; their p times this.",
    ),
]
TwinsAlpha = Annotated[
    float,
    typer.Option(
        "--twins-alpha",
        help="Probability that the test of m twins rejects for an independent suspect of any kind: above 0, at most "
        "0.05. It can reject from 1/m on.",
        callback=positive,
        max=0.05,
    ),
]
Private = Annotated[
    str, typer.Option("--private", help="Images that the victim was trained on. " + DATA_HELP, show_default=False)
]
OptionalPrivate = Annotated[
    str | None,
    typer.Option(
        "--private",
        help="Images that the victim was trained on. " + DATA_HELP,
        show_default=False,
    ),
]
Others = Annotated[
    str,
    typer.Option(
        "--others",
        help="Other images of the same kind, which independent encoders are trained on. At least as many as the "
        "victim's.",
        show_default=False,
    ),
]
Size = Annotated[
    int | None, typer.Option("--size", min=8, help="Resize images to SIZE x SIZE pixels.", show_default=False)
]
BadImage = Annotated[
    OnBadImage, choice(OnBadImage, "--on-bad-image", help="What to do at a file that is not a readable image.")
]
TestData = Annotated[str, typer.Option("--test", help="Labeled test images.", show_default=False)]
OutputKind = Annotated[OutputKindName, choice(OutputKindName, "--output-kind", help="What the queried model returns.")]

# training
EPOCHS_HELP = "Epochs: how often each encoder that is trained sees every training image."
BATCH_HELP = "Images per optimization step."
LR_HELP = "Learning rate; it falls to zero along a cosine."
TEMPERATURE_HELP = "Temperature of the contrastive loss."
WATERMARK_HELP = (
    "keyed: the keyed watermark, which no panel is needed for. Rotation watermarks: secret, with a fresh secret key; "
    "paper, the paper's public 180-degree rotation task. none: no watermark."
)
KEYED_WEIGHT_HELP = (
    "Weight of the keyed watermark's loss. The default suits every objective; a training of fewer than 1,000 steps "
    "(batches) needs more."
)
KEYED_FRACTION_HELP = "Fraction of each batch that trains the keyed watermark."
KEYED_VIEWS_HELP = (
    "Show random crops to the keyed watermark: for large encoders and few images, whose targets they learn by heart."
)
WEIGHT_HELP = "Weight of the rotation watermark's loss relative to the other loss."
Key = Annotated[
    Path | None,
    typer.Option(
        "--key",
        help="Key of the keyed watermark: the folder of turnmark key new. Without it a new key is made, not anchored "
        "in time, and a tenth of the images is held out for its probes.",
        show_default=False,
    ),
]
KeySeed = Annotated[
    int | None,
    typer.Option(
        "--key-seed",
        help="Derive the secret key of a rotation watermark from this number instead of the system's randomness. Keep "
        "the number secret.",
        show_default=False,
    ),
]
Onnx = Annotated[bool, typer.Option("--onnx/--no-onnx", help="Also write the encoder as ONNX, encoder.onnx.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of all randomness except the secret key.")]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", parser=_device, metavar="DEVICE")
]

# attacks
METHOD_HELP = "Extraction attack."
Method = Annotated[ExtractionMethod, choice(ExtractionMethod, "--method", help=METHOD_HELP)]
LOSS_HELP = "Extraction loss."
LossName = Loss
BUDGET_HELP = "Largest number of queries that the victim answers."
N_QUERIES_HELP = "Number of images that the victim is queried with."

# results
Out = Annotated[Path, typer.Option("--out", help="Folder to write into.", show_default=False)]
OutFile = Annotated[Path, typer.Option("--out-file", help="File to write.", show_default=False)]
ClaimFolder = Annotated[Path, typer.Option("--claim", help="Folder of the claim.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Number of models that are processed at the same time.")]
N_PROBES_HELP = "Number of public probes; with a key at least 16 for each dimension of the representation are advised."

# verification
PublicKey = Annotated[
    Path | None,
    typer.Option(
        "--public-key",
        help="Public key of the signer, obtained from the signer. Without it, anyone may have signed.",
        show_default=False,
    ),
]
Roots = Annotated[
    Path | None,
    typer.Option(
        "--roots", help="Root certificates (PEM) of the timestamp authorities that you trust.", show_default=False
    ),
]
Before = Annotated[
    str | None,
    typer.Option(
        "--before", help="A trusted timestamp must be earlier than this date, such as 2026-05-01.", show_default=False
    ),
]
SigningKey = Annotated[
    Path, typer.Option("--signing-key", help="Your signing key, made by turnmark keygen.", show_default=False)
]
Request = Annotated[
    Path | None,
    typer.Option(
        "--request",
        help="Write a timestamp request (RFC 3161) to this file. POST it to an authority from any machine, then attach "
        "the reply.",
        show_default=False,
    ),
]
Tsa = Annotated[
    list[str] | None,
    typer.Option(
        "--tsa", help="URL of a timestamp authority to ask. Repeat for several authorities.", show_default=False
    ),
]
