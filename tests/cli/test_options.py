"""Options mean one thing each, offer what works, and wrong ones are answered before anything heavy is imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import typer.main
from support.command import Run, error_line

from attacks_for_eval import choices as attacks
from attacks_for_eval.evaluation import linear, spec
from attacks_for_eval.evasion.apply import EVASIONS
from attacks_for_eval.extraction.config import VIEWS
from attacks_for_eval.extraction.losses import LOSSES
from cli import inputs, options
from cli.main import app
from ownership.encoders.architectures import ARCHITECTURES
from ownership.plan import STRATA
from ownership.suspects import choices as suspects
from ownership.suspects.endpoint.protocols import APIS
from ownership.suspects.preprocessing import PREPROCESSES
from ownership.suspects.sandbox.copying import WEIGHTS
from ownership.suspects.suspect import OUTPUT_KINDS

ROOT = Path(__file__).resolve().parents[2]
TWO_TEXTS = {
    "--method",  # attack evaluate does not offer the methods that need a projection head
}
"""Options whose help may differ between commands, and why."""


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for name, part in command.commands.items():
            yield from commands(part, (*path, name))
    else:
        yield " ".join(path), command


ALL = dict(commands(typer.main.get_command(app)))


def base_type(command: Any, option: Any) -> Any:
    """What one value of an option is, in the command's function."""
    found = get_type_hints(command.callback)[option.name]
    kinds = [part for part in (get_args(found) or (found,)) if part is not type(None)]
    if get_origin(found) is Literal or get_origin(kinds[0]) is Literal:
        return str
    return (get_args(kinds[0]) or kinds)[0]


def test_an_option_has_one_type_and_one_meaning() -> None:
    texts, types = defaultdict(set), defaultdict(set)
    for command in ALL.values():
        for option in command.params:
            if option.param_type_name == "option":
                for name in option.opts:
                    texts[name].add(option.help)
                    if option.name in get_type_hints(command.callback):
                        types[name].add(base_type(command, option))
    assert len(texts) > 80
    assert {n for n, found in texts.items() if len(found) > 1} <= TWO_TEXTS
    assert not {n: found for n, found in types.items() if len(found) > 1}
    assert not [n for n, found in texts.items() if not all(found)]


def test_no_option_is_named_like_a_command_of_another_meaning() -> None:
    names = {o for command in ALL.values() for p in command.params for o in p.opts}
    assert not names & {"--probes", "--queries", "--output", "--start", "--model", "--steal", "--view"}


@pytest.mark.parametrize("words", ALL)
def test_help_is_plain_and_complete(words: str, run: Run) -> None:
    code, out, err = run(*words.split(), "--help")
    assert (code, err) == (0, "")
    assert "Usage:" in out
    assert "\x1b" not in out


def test_every_choice_is_one_that_the_libraries_know() -> None:
    for kind, known in (
        (attacks.ExtractionMethod, attacks.METHODS),
        (attacks.Loss, LOSSES),
        (attacks.View, VIEWS),
        (attacks.SurrogateView, ("same", *VIEWS)),
        (attacks.Classifier, linear.METHODS),
        (attacks.WeightTransform, spec.WEIGHT_TRANSFORMS),
        (attacks.OutputTransform, list(EVASIONS)),
        (attacks.IndependentObjective, [o.value for o in spec.Objective if o != "file"]),
        (suspects.OutputKind, OUTPUT_KINDS),
        (suspects.Protocol, APIS),
    ):
        assert set(get_args(kind)) == set(known), kind
    assert set(options.ARCHITECTURES) == set(ARCHITECTURES)
    assert set(inputs.STRATA) == set(STRATA)
    assert set(inputs.PREPROCESSES) == set(PREPROCESSES)
    assert inputs.WEIGHTS == WEIGHTS


def test_every_data_set_that_is_offered_can_be_made() -> None:
    import inspect

    from torchvision import datasets

    by_name = {name.lower(): getattr(datasets, name) for name in datasets.__all__}
    for name in set(inputs.DATA_SETS) - {"digits"}:
        parameters = inspect.signature(by_name[name.replace("-", "")].__init__).parameters
        assert "download" in parameters
        assert {"train", "split"} & set(parameters)


CLAIM, REPORT = ROOT / "tests/golden/claim", ROOT / "tests/golden/report"
PICTURE = b"\x89PNG"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "five"
    folder.mkdir()
    for i in range(5):
        (folder / f"{i}.png").write_bytes(PICTURE)
    (folder / "rows.npy").write_bytes(b"x")
    return folder


def wrong(folder: Path) -> dict[str, tuple[str, tuple[object, ...]]]:
    """Message -> command line."""
    return {
        "nope.onnx does not exist": ("audit", "nope.onnx", "--claim", "nope"),
        "is a folder of pictures, not an encoder": ("audit", folder, "--claim", "nope"),
        "Did you mean 'direct'?": ("attack", "extract", folder, "digits", "--method", "direkt", "--out", "x"),
        "Did you mean 'infonce'?": ("attack", "extract", folder, "digits", "--loss", "infonse", "--out", "x"),
        "Did you mean 'resnet18'?": ("train", "digits", "--arch", "resnet81", "--out", "x"),
        "Did you mean 'imagenet'?": ("audit", folder, "--claim", "x", "--preprocess", "imagnet"),
        "Did you mean 'attack'": ("attak",),
        "--pooling": ("audit", folder, "--claim", "x", "--poolling", "cls"),
        "is a model's file, to which --allow-http, --api do not apply": (
            "audit", folder / "encoder.safetensors", "--claim", "x", "--api", "openai", "--allow-http",
        ),
        "is an endpoint, to which --arch, --probe-folder do not apply": (
            "audit", "HTTPS://api.example", "--claim", "x", "--arch", "tiny", "--probe-folder", "x",
        ),
        "is recorded representations, to which --preprocess, --stop-early do not apply": (
            "audit", "rows.npy", "--claim", "x", "--probe-folder", "x", "--preprocess", "clip", "--stop-early",
        ),
        "is an endpoint, to which --pooling does not apply": (
            "report", "reproduce", REPORT, "--claim", "x", "--suspect", "https://api.example", "--pooling", "cls",
        ),
        "rows.npy holds rows of numbers, not a model": ("audit", folder / "rows.npy", "--claim", "x"),
        "cont-steal means loss infonce, not mse": (
            "attack", "extract", folder, "digits", "--method", "cont-steal", "--loss", "mse", "--out", "x",
        ),
        "the loss mse has no temperature": ("attack", "extract", folder, "digits", "--temperature", 1, "--out", "x"),
        "--private and --public are the same images": (
            "claim", "build", folder, "--private", "digits", "--public", "digits", "--panel", folder, "--out", "x",
        ),
        "--lr": ("train", "digits", "--lr", -1, "--out", "x"),
        "--watermark-fraction": ("train", "digits", "--watermark-fraction", 7, "--out", "x"),
        "--batch-size": ("embed", folder, "digits", "--batch-size", 0, "--out", "x"),
        "--temperature": ("attack", "extract", folder, "digits", "--temperature", 0, "--out", "x"),
        "--alpha": (
            "claim", "build", folder, "--private", "digits", "--public", "digits", "--panel", folder, "--out", "x",
            "--alpha", 0,
        ),
        "--rotate erases a rotation watermark": ("train", "digits", "--rotate", "--out", "x"),
        "digits has no split 'trayn'": ("train", "digits:trayn", "--out", "x"),
        "cifar10 has no split 'tset'": ("train", "cifar10:tset", "--out", "x"),
        "0 images are too few": ("train", "digits[500:100]", "--out", "x"),
        "five is no claim: it has no claim.json": ("claim", "verify", folder),
        "--public-key: nope does not exist": ("report", "verify", REPORT, "--public-key", "nope"),
        "--before needs --roots": ("report", "verify", REPORT, "--before", "2026-05-01"),
        "'soon' is no date": ("report", "verify", REPORT, "--before", "soon", "--roots", REPORT / "report.html"),
        "report is no claim: it is a report": ("claim", "show", REPORT),
        "claim is no report: it is a claim": ("report", "sign", CLAIM, "--signing-key", "k"),
        "report.json is a file, not a report": ("report", "verify", REPORT / "report.json"),
        "--signing-key: nope does not exist": ("claim", "seal", CLAIM, "--signing-key", "nope"),
        "disclosure: nope does not exist": ("claim", "check-disclosure", "nope"),
        "claim exists already": ("claim", "redact", CLAIM, "--out", CLAIM),
        "report exists already": ("claim", "probes", CLAIM, "--out", REPORT),
        "5 images are too few": ("train", folder, "--out", "x"),
        "is neither a folder, nor a file, nor a known data set": ("train", "digts", "--out", "x"),
        "five is a folder of pictures": (
            "claim", "build", folder, "--private", folder, "--public", "digits", "--panel", folder, "--out", "x",
        ),
        "unknown stratum 'plane'. Did you mean 'plain'?": (
            "claim", "build", folder / "encoder.safetensors", "--private", "digits[:500]", "--public", "digits",
            "--panel", "plane:x", "--out", "x",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("said", wrong(Path()))
def test_wrong_input_is_answered_without_heavy_imports(said: str, run: Run, pictures: Path) -> None:
    (pictures / "encoder.safetensors").write_bytes(b"x" * 99)
    code, out, err = run(*wrong(pictures)[said])
    assert (code, out) == (2, "")
    if "encoder.safetensors" not in str(wrong(pictures)[said]):
        (pictures / "encoder.safetensors").unlink()
        code, out, err = run(*wrong(pictures)[said])
    assert said in error_line(err)


def test_what_is_answered_at_once_imports_no_library(pictures: Path) -> None:
    words = [list(map(str, words)) for words in wrong(pictures).values()]
    code = (
        "import sys\n"
        "from cli.main import main\n"
        f"for words in {words!r}:\n"
        "    sys.argv = ['turnmark', *words]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert end.code == 2, words\n"
        "heavy = {'torch', 'numpy', 'timm', 'onnxruntime', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_model_where_images_are_wanted_and_the_other_way_round(run: Run, tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "encoder.onnx").write_bytes(b"x")
    trained = tmp_path / "trained"
    trained.mkdir()
    (trained / "config.json").write_text("{}")
    (trained / "encoder.safetensors").write_bytes(b"x")
    (trained / "predictor.safetensors").write_bytes(b"x")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "checkpoint.pt").write_bytes(b"x")
    panel = tmp_path / "panel"
    shutil.copytree(trained, panel / "plain_0")
    shutil.copytree(unfinished, panel / "plain_1")
    (panel / "plain_1/unfinished.json").write_text('{"command": "turnmark panel victim --out panel"}')
    build = (
        "claim",
        "build",
        "trained",
        "--private",
        "digits[:99]",
        "--public",
        "digits[99:]",
        "--out",
        "x",
        "--panel",
    )
    for said, words in (
        ("is a model, not images", ("train", "encoder.onnx", "--out", "x")),
        ("holds an encoder or a claim, not images", ("train", "trained", "--out", "x")),
        ("is a folder of pictures, not an encoder", ("attack", "linear-eval", "five", "digits", "--test", "digits")),
        ("is a picture, not an encoder", ("embed", "five/0.png", "digits", "--out", "x")),
        ("is a rotation predictor, not an encoder", ("show", "trained/predictor.safetensors")),
        ("is unfinished", ("attack", "extract", "unfinished", "digits", "--out", "x")),
        ("panel/plain_1 is unfinished", (*build, "panel")),
    ):  # fmt: skip
        code, _, err = run(*words)
        assert code == 2
        assert said in error_line(err), words
    assert "hint: continue it: turnmark panel victim --out panel" in err
