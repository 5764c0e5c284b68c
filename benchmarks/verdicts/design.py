"""The models of the verdict benchmark: victims with a panel each; suspects are in `suspects.py`.

They are disjoint by seed and by data. Parts of Fashion-MNIST's 60,000 training images (and 10,000 test images), and of
CIFAR-10's 50,000:

| Fashion-MNIST | CIFAR-10 | used by |
|---|---|---|
| 0 to 14,000; test 0 to 1,000 | 0 to 10,000, 46,000 on; test 0 to 1,000, 5,000 on | `benchmarks.development` |
| 4,000 to 10,000 | the same | a public checkpoint |
| 14,000 to 34,000 | 12,000 to 20,000 | the victims, 4,000 each: their private images |
| 34,000 to 42,000 | 20,000 to 28,000 | panel members on other data |
| 42,000 to 50,000 | 28,000 to 36,000 | test independents on other data |
| 50,000 to 60,000 | 36,000 to 46,000 | the attacker's queries |
| test 1,000 to 10,000 | the same | the owners' public images, 1,800 each |

Rotation-averaged partial RSA was chosen on CIFAR-10's development models (ADR 18), the rest on Fashion-MNIST's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from attacks_for_eval.evaluation.spec import ModelSpec

PRIVATE, PUBLIC = 4000, 1800
MEMBERS = 16  # of a stratum
DISTILLED = "distilled"
"""Name of the objective of `ModelSpec` that trains an encoder on another one's representations."""

PUBLIC_ENCODERS = (
    "akamaster_cifar10_resnet20.onnx",
    "akamaster_cifar10_resnet32.onnx",
    "pretrainedResnet.onnx",
    "mobilenet_v1_0.25_128_quant.onnx",
    "vww_96_float.onnx",
    "mobilenet_v2.onnx",
    "tf_efficientnet_lite0.onnx",
    "tf_efficientnet_lite1.onnx",
    "tf_efficientnet_lite2.onnx",
)
"""Files that `benchmarks.prepare.public_encoders` writes: trained with labels, on CIFAR-10, ImageNet and COCO."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """One data set's benchmark: its sizes, and which models it leaves out."""

    data: str
    side: int
    foreign: str  # queries of another distribution
    victims: int
    fine_tuned: tuple[int, ...]  # these victims are fine-tunes of one public checkpoint
    first: int  # the first victim's first image; the images of all other models follow those of the victims
    complete: bool = True  # every kind of independent encoder, several of each; else a sample
    arch: str = "small"
    epochs: int = 12  # of victims and independents
    fine_tune_epochs: int = 4  # of fine-tunes of the checkpoint
    usual_queries: int = 5000  # an extraction takes as many steps as `extraction_epochs` over these
    extraction_epochs: int = 12
    public_encoders: bool = False  # whether public encoders are test independents (where they are not panel members)

    @property
    def indices(self) -> range:
        """The victims."""
        return range(self.victims)

    @property
    def slices(self) -> dict[str, tuple[str, int, int]]:
        """Name of a source -> split, first image, end."""
        others = self.first + PRIVATE * self.victims
        out = {
            "panel": ("train", others, others + 8000),
            "others": ("train", others + 8000, others + 16_000),
            "queries": ("train", others + 16_000, others + 26_000),
            "checkpoint": ("train", 4_000, 10_000),
            "probe-learn": ("train", 0, 3_000),  # linear probe: labelled images that no model was trained on
            "probe-test": ("test", 0, 5_000),
        }
        for v in self.indices:
            out[f"private_{v}"] = ("train", self.first + PRIVATE * v, self.first + PRIVATE * (v + 1))
            out[f"public_{v}"] = ("test", 1_000 + PUBLIC * v, 1_000 + PUBLIC * (v + 1))
        return out

    @property
    def checkpoint(self) -> ModelSpec:
        """The public checkpoint."""
        return independent(self, "checkpoint", 900, source="checkpoint", images=6000)


FASHION = Scale(
    data="fashion-mnist", side=28, foreign="cifar10:train[:10000]", victims=5, fine_tuned=(3, 4), first=14_000
)
CIFAR = Scale(
    data="cifar10",
    side=32,
    foreign="tiny-imagenet:val[:10000]",
    victims=2,
    fine_tuned=(1,),
    first=12_000,
    complete=False,
    epochs=16,
    fine_tune_epochs=5,
    public_encoders=True,
)
SCALES = {scale.data: scale for scale in (FASHION, CIFAR)}


def independent(scale: Scale, kind: str, seed: int, **fields: Any) -> ModelSpec:
    """Return the spec of an independent encoder."""
    return ModelSpec(
        **{
            "role": "independent",
            "kind": kind,
            "arch": scale.arch,
            "epochs": scale.epochs,
            "images": PRIVATE,
            "seed": seed,
            **fields,
        }
    )


def panel(scale: Scale, victim: int, checkpoint: str) -> Iterator[tuple[str, ModelSpec]]:
    """Yield the stratum and spec of each panel member of a victim; `checkpoint` is the file of the public checkpoint.

    16 a stratum, as many as `turnmark claim power` asks for. Plain and watermarked: three of each on the victim's
    private images. Rotation-invariant: trained on rotated views, two of them on the private images. Sibling, for a
    fine-tuned victim: its checkpoint and other fine-tunes of it. All others are on other data and shared by the claims.
    Distilled members: `distilled_controls`.
    """
    own = 1000 + 100 * victim
    for i in range(MEMBERS):
        seed, source = (own + i, f"private_{victim}") if i < 3 else (1900 + i, "panel")
        yield "plain", independent(scale, "panel", seed, source=source)
    for i in range(MEMBERS):
        seed, source = (own + 20 + i, f"private_{victim}") if i < 3 else (1920 + i, "panel")
        yield "watermarked", independent(scale, "panel", seed, source=source, watermark="secret" if i % 4 else "paper")
    for i in range(MEMBERS):
        seed, source = (own + 60 + i, f"private_{victim}") if i < 2 else (1960 + i, "panel")
        yield "rotation_invariant", independent(scale, "panel", seed, source=source, objective="rotated")
    yield from from_checkpoint(scale, victim, checkpoint, MEMBERS - 1)


def distilled_controls(
    scale: Scale, members: Sequence[tuple[str, ModelSpec]], name: Callable[[ModelSpec], str]
) -> Iterator[tuple[str, ModelSpec]]:
    """Yield distilled members of a panel; their teachers are, in turn, watermarked, plain and sibling members of it.

    One teacher of each kind was itself trained on the victim's private images; the other plain and watermarked teachers
    are shared by the claims. Half are distilled for twice as many epochs. Seeds follow from the teacher, so one
    distilled encoder is in many panels.

    Args:
        scale: of the benchmark.
        members: of the panel, as `panel` yields them.
        name: returns the file name of a model.
    """
    of = {kind: [r for stratum, r in members if stratum == kind] for kind in ("watermarked", "plain", "sibling")}
    kinds = [kind for kind, teachers in of.items() if teachers]
    for i in range(MEMBERS):
        kind, j = kinds[i % len(kinds)], i // len(kinds)
        teacher = of[kind][j if kind == "sibling" or not j else 2 + j]
        way = {
            "loss": ("mse", "infonce")[teacher.seed % 2],
            "epochs": scale.extraction_epochs * (1 + teacher.seed // 2 % 2),
        }
        fields = {"objective": DISTILLED, "method": "rotated", "base_checkpoint": name(teacher), **way}
        yield (
            "distilled",
            independent(scale, "panel", 10_000 + teacher.seed, source="panel", images=scale.usual_queries, **fields),
        )


def small_or_public(scale: Scale, victim: int, checkpoint: str) -> Iterator[tuple[str, ModelSpec]]:
    """Yield the panel of an owner who cannot train encoders like the victim: 18 small encoders and the public ones.

    The small ones see half the images for half the epochs; a third are watermarked, a third trained on rotated views;
    half of each are shared by all claims. Fine-tunes of the victim's checkpoint are members where it has one: they cost
    as much as the victim's own fine-tuning.
    """
    fields = {"arch": "tiny", "images": PRIVATE // 2, "epochs": scale.epochs // 2}
    for i in range(6):
        seed, source = (3000 + 100 * victim + i, f"private_{victim}") if i < 3 else (3900 + i, "panel")
        yield "small", independent(scale, "panel", seed, source=source, **fields)
        yield "small", independent(scale, "panel", seed + 20, source=source, watermark="secret", **fields)
        yield "small", independent(scale, "panel", seed + 40, source=source, objective="rotated", **fields)
    for name in PUBLIC_ENCODERS:
        yield "public", public_encoder(scale, name)
    yield from from_checkpoint(scale, victim, checkpoint, 6)


def from_checkpoint(scale: Scale, victim: int, checkpoint: str, fine_tunes: int) -> Iterator[tuple[str, ModelSpec]]:
    """Yield the siblings of a fine-tuned victim: its checkpoint and fine-tunes of that, half on the victim's images."""
    if victim not in scale.fine_tuned:
        return
    own = 1000 + 100 * victim
    yield "sibling", replace(scale.checkpoint, kind="panel")
    cycle: list[tuple[str, Any]] = [
        *((f"private_{victim}", m) for m in ("none", "secret", "secret")),
        *(("panel", m) for m in ("none", "paper", "secret")),
    ]
    for i in range(fine_tunes):
        source, watermark = cycle[i % len(cycle)]
        fields = {
            "source": source,
            "watermark": watermark,
            "base_checkpoint": checkpoint,
            "epochs": scale.fine_tune_epochs,
        }
        yield "sibling", independent(scale, "panel", own + 40 + i, **fields)


def public_encoder(scale: Scale, name: str) -> ModelSpec:
    """Return the spec of a public encoder, by its file's name."""
    return independent(scale, "public encoder", 0, objective="file", base_checkpoint=name)


def epochs_for(images: int, epochs: int = 12, usual: int = 5000) -> int:
    """Return more epochs for few images, so that trainings take about as many steps; at most four times `epochs`."""
    return max(4, min(4 * epochs, round(epochs * usual / images)))
