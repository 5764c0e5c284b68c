"""The encoders, the images and the suspects of the benchmark of public ImageNet encoders.

| images, shuffled by a fixed seed | used by |
|---|---|
| Tiny-ImageNet 0 to 4,600; CIFAR-10 train 0 to 10,000 | embedding |
| Tiny-ImageNet 4,600 to 7,100; CIFAR-10 train 10,000 to 13,500 | the pool of the keys |
| Tiny-ImageNet 7,100 to 8,100; CIFAR-10 train 18,500 to 34,500; CIFAR-100 test | the attacker's queries |
| Tiny-ImageNet 8,100 on | linear evaluation: half to train, half to test |
| CIFAR-10 train 13,500 to 18,500, test | linear evaluation |

All are brought to one side, `SIDE`. Another seed, another split, was used to choose the settings of the embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

SIDE = 64
PROBES = 5120
"""Probes of a key: four for each of 1,280 dimensions, which a verdict on an encoder that is not found takes."""
QUERIES = 27_000
COMMON: dict[str, Any] = {
    "keyed_fraction": 0.5,  # the features of 8 rotations of each image that shows the watermark are most of the cost
    "keyed_views": True,  # few images for a large encoder
    "precision": "float32",  # on CPUs faster for depthwise convolutions
}

LITE, MOBILE = "tf_efficientnet_lite0", "mobilenet_v2"
ARCHITECTURES = {LITE: "timm:tf_efficientnet_lite0", MOBILE: "torchvision:mobilenet_v2"}
"""Public encoder -> its architecture; both have 1,280 dimensions."""
EMBEDDING = {
    LITE: {**COMMON, "epochs": 4, "keyed_weight": 1.0, "lr": 2e-4},
    MOBILE: {**COMMON, "epochs": 8, "keyed_weight": 3.0, "lr": 1e-4},
}
"""What differs from the defaults of `turnmark embed`, chosen on development keys.

A learning rate four times as high moves representations by their whole variance in a few steps.
"""
OTHER = {LITE: MOBILE, MOBILE: LITE}
SMALL = "small_wide"
"""Architecture of surrogates from random weights, of images of half the side."""
FILES = (
    "akamaster_cifar10_resnet20",
    "akamaster_cifar10_resnet32",
    "pretrainedResnet",
    "mobilenet_v1_0.25_128_quant",
    "vww_96_float",
)
"""Public encoders as ONNX files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """One model, made once.

    Attributes:
        role: surrogate, independent or victim.
        kind: group in the tables.
        encoder: name of a public encoder, of a file, or `SMALL`: the architecture, and the weights it starts from.
        start: "public" or "random" weights.
        teacher: whose responses it learns; a victim (`victim_name`) or a public encoder. "" for none: the labels of
            the queries where `epochs` is not 0.
        loss: of the extraction.
        epochs: over the queries; 0 for an encoder as it is.
        batch_size: of the extraction.
        lr: learning rate of the extraction.
        outputs: transforms of the outputs, each tested; "" is none.
    """

    role: str
    kind: str
    encoder: str
    start: str = "public"
    teacher: str = ""
    loss: str = "mse"
    epochs: int = 0
    batch_size: int = 64
    lr: float = 1e-3
    outputs: tuple[str, ...] = ("",)

    def made_from(self) -> dict[str, Any]:
        """Return everything that the model follows from."""
        return {name: value for name, value in asdict(self).items() if name not in ("role", "kind", "outputs")}


def embedding(encoder: str) -> dict[str, Any]:
    """Return what differs from the defaults of `turnmark embed` for a public encoder."""
    return EMBEDDING[encoder]


def victim_name(encoder: str, key: int) -> str:
    """Return the name of a public encoder with a key embedded."""
    return f"{encoder} {key}"


def surrogates(encoder: str, key: int) -> Iterator[Suspect]:
    """Yield the surrogates of a victim, by decreasing knowledge of the attacker.

    Those of another network than the victim's end in a linear layer to the victim's representations.
    """
    mse = Suspect(
        role="surrogate",
        kind="from the same public encoder, MSE",
        encoder=encoder,
        teacher=victim_name(encoder, key),
        epochs=1,
        lr=2e-4,
        outputs=("", "rotate_basis", "rounded", "project"),
    )
    infonce = replace(mse, loss="infonce", batch_size=128, outputs=("",))
    yield mse
    yield replace(infonce, kind="from the same public encoder, InfoNCE")
    yield replace(mse, kind="from the other public encoder, MSE", encoder=OTHER[encoder])
    yield replace(infonce, kind="from the other public encoder, InfoNCE", encoder=OTHER[encoder])
    small = "small network, random weights, MSE"
    yield replace(mse, kind=small, encoder=SMALL, start="random", epochs=5, lr=1e-3, outputs=("",))


def independents(keys: range) -> Iterator[Suspect]:
    """Yield the independent encoders of all keys, cheap ones first."""
    public = [Suspect(role="independent", kind="public encoder", encoder=name) for name in (*ARCHITECTURES, *FILES)]
    yield from public
    for base in public[: len(ARCHITECTURES)]:
        extracted = next(surrogates(base.encoder, keys[0]))
        kind = "surrogate of the public encoder"
        yield replace(extracted, role="independent", kind=kind, teacher=base.encoder, outputs=("",))
        yield replace(base, kind="public encoder fine-tuned to labels", epochs=2, lr=3e-4)
