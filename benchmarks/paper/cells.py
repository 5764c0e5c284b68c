"""What is measured: a cell is one theft, or one measurement of a victim, made once however many tables show it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ownership.io.canonical import canonical_json, sha256

SUBSTITUTES = {"second": "cifar100", "foreign": "fashion-mnist"}
ORIGINALS = {"second": "stl10", "foreign": "svhn"}
"""What stands in the paper's second and third column."""

SCALES: dict[str, dict[str, Any]] = {
    "cpu": {
        "arch": "tiny",
        "passes": 15, "most_passes": 100, "usual": 9000, "batch_size": 128, "lr": 2e-3, "head_passes": 15,
        "labelled": "cifar10:train[20000:25000]", "held_out": "cifar10:train[25000:35000]", "probe_private": 2000,
        "victim": {"epochs": 20, "lr": 2e-3, "temperature": 0.2, "watermark_fraction": 1.0},
        "private": {"cifar10": "cifar10:train[:20000]", "tiny-imagenet": "tiny-imagenet:val[:8000]",
                    "fashion-mnist": "fashion-mnist:train[:10000]"},
        "counts": [500, 1000, 5000, 10000, 20000],
        "cifar_counts": [500, 1000, 5000, 10000],
        "noise_unit": 0.1,
        "tasks": SUBSTITUTES,
    },
    "paper": {
        "arch": "resnet18",
        "passes": 100, "most_passes": 100, "usual": 9000, "batch_size": None, "lr": None, "head_passes": 200,
        "labelled": "cifar10:train", "held_out": "cifar10:test[9000:]", "probe_private": 2000,
        "victim": {"epochs": 200, "lr": 3e-4, "temperature": 0.07},
        "private": {"cifar10": "cifar10:train", "tiny-imagenet": "tiny-imagenet:val[:8000]",
                    "fashion-mnist": "fashion-mnist:train"},
        "counts": [500, 1000, 5000, 10000, 20000, 30000, 50000],
        "cifar_counts": [500, 1000, 5000, 10000, 20000, 30000, 40000, 50000],
        "noise_unit": 1.0,
        "tasks": SUBSTITUTES,
    },
}  # fmt: skip
SCALES["original"] = {
    **SCALES["paper"],
    "tasks": ORIGINALS,
    "private": {**SCALES["paper"]["private"], "svhn": "svhn:train"},
}
"""`passes` over `usual` queries; fewer queries get more passes (the same number of steps) up to `most_passes`.

`noise_unit` is what Tables 10 and 11 call 1: the small victim's representations are ten times shorter than the paper's,
and the paper's own noise would drown them for everybody."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One thing to measure."""

    method: str  # name in run.MEASURES
    victim: str = "cifar10"  # name in the scale's `private`
    source: str = "cifar10:test"  # what the thief asks about
    theft: dict[str, Any] = field(default_factory=dict)  # fields of ExtractionConfig
    box: dict[str, Any] = field(default_factory=dict)  # what the victim does to its answers
    seed: int = 0

    def key(self, scale: str) -> str:
        """Hash of everything the result depends on."""
        # noise_unit is in the cell's own noise; substitutes were all there was when the first cells were measured
        used = {name: value for name, value in SCALES[scale].items() if name != "noise_unit" and value != SUBSTITUTES}
        return sha256(canonical_json({"scale": used, "cell": asdict(self)}))[:16]


def theft(
    loss: str, *, victim: str = "cifar10", source: str = "cifar10:test", method: str = "direct", **rest: Any
) -> Cell:
    """A theft with this loss; `box` holds what the victim does to its answers."""
    box = rest.pop("box", {})
    return Cell(method=method, victim=victim, source=source, theft={"loss": loss, **rest}, box=box)
