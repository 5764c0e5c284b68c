"""What is measured: a cell is one extraction, or one measurement of a victim, made once for all tables that show it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.common.rows import Row
from ownership.io.canonical import canonical_json, sha256

SUBSTITUTES = {"second": "cifar100", "foreign": "fashion-mnist"}
ORIGINALS = {"second": "stl10", "foreign": "svhn"}
"""What stands in the paper's second and third column."""

SCALES: dict[str, dict[str, Any]] = {
    "cpu": {
        "arch": "tiny",
        "epochs": 15, "max_epochs": 100, "usual_queries": 9000, "batch_size": 128, "lr": 2e-3, "head_epochs": 15,
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
        "epochs": 100, "max_epochs": 100, "usual_queries": 9000, "batch_size": None, "lr": None, "head_epochs": 200,
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
"""`epochs` over `usual_queries`; fewer queries get more epochs (the same number of steps), at most `max_epochs`.

`noise_unit` is what Tables 10 and 11 call 1: the small victim's representations are ten times shorter than the paper's,
so the paper's own noise would drown them."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One thing to measure."""

    method: str  # name in measure.MEASURES
    victim: str = "cifar10"  # name in the scale's `private`
    source: str = "cifar10:test"  # the attacker's queries
    extraction: dict[str, Any] = field(default_factory=dict)  # fields of ExtractionConfig
    box: dict[str, Any] = field(default_factory=dict)  # what the victim does to its responses
    seed: int = 0

    def key(self, scale: str) -> str:
        """Return the hash of everything that the result depends on."""
        used = {name: value for name, value in SCALES[scale].items() if name != "noise_unit"}
        return sha256(canonical_json({"scale": used, "cell": asdict(self)}))[:16]

    def of(self, scale: str) -> tuple[str, str]:
        """Return what identifies the cell among rows: the scale's name and the cell as JSON."""
        return scale, canonical_json(asdict(self)).decode()


def identity(row: Row) -> tuple[str, str]:
    """Return `Cell.of` of a row."""
    return row["scale"], canonical_json(row["cell"]).decode()


def extraction(
    loss: str, *, victim: str = "cifar10", source: str = "cifar10:test", method: str = "direct", **rest: Any
) -> Cell:
    """Return an extraction with this loss; `box` holds what the victim does to its responses."""
    box = rest.pop("box", {})
    return Cell(method=method, victim=victim, source=source, extraction={"loss": loss, **rest}, box=box)
