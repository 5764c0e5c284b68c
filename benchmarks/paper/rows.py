"""The rows of the paper's tables: what is stolen how, and the numbers the paper prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CIFAR = "CIFAR-10 / STL-10 / SVHN, top-1"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One theft of one table."""

    table: str
    name: str
    paper: str  # as printed
    columns: str = CIFAR  # what the paper's numbers are
    method: str = "direct"  # victim, direct, recreate-head, access-head, labels
    theft: dict[str, Any] = field(default_factory=dict)  # fields of ExtractionConfig
    box: dict[str, Any] = field(default_factory=dict)  # options of BlackBox


_LOSSES = [
    ("mse", "75.5 / 64.8 / 58.8", {}),
    ("infonce", "75.5 / 64.6 / 69.6", {}),
    ("softnn", "76.9 / 67.1 / 67.3", {}),
    ("wasserstein", "63.9 / 50.8 / 49.5", {}),
    ("supcon", "78.5 / 63.1 / 67.1", {"victim_view": "standard"}),
    ("barlow", "26.9 / 26.6 / 26.2", {"victim_view": "standard"}),
]

_QUERIES = {  # Table 9: CIFAR-10 victim, CIFAR-10 queries, SoftNN
    500: "47.7 / 39.3 / 45.1",
    1000: "51.8 / 41.8 / 53.2",
    5000: "58.4 / 49.2 / 59.1",
}

_SVHN_QUERIES = {  # Table 8: CIFAR-10 victim, SVHN queries; ours come from the victim's own distribution
    "mse": {500: "36.1 / 33.2 / 39.5", 1000: "43.4 / 39.7 / 58.1", 5000: "55.6 / 47.6 / 58.7"},
    "infonce": {500: "35.7 / 31.1 / 26.4", 1000: "38.6 / 34.7 / 40.4", 5000: "50.5 / 46.6 / 72.7"},
}

_VIEWS = {  # Table 17, 10,000 queries: Standard, +Rotation, NoAug
    "mse": {"standard": "54.69", "rotation": "73.76", "none": "54.61"},
    "softnn": {"standard": "55.48", "rotation": "74.49", "none": "56.45"},
    "infonce": {"standard": "56.53", "rotation": "56.85", "none": "57.0"},
}

_NOISE = {0: "66.3", 1: "64.8", 2: "66.5", 3: "65.5", 4: "63.4"}  # Table 11, mean 0, adversary with MSE

ROWS: list[Row] = [
    Row(table="1", name="victim", paper="79.0 / 67.9 / 65.1", method="victim"),
    Row(table="1", name="direct extraction (SoftNN)", paper="76.9 / 67.1 / 67.3", theft={"loss": "softnn"}),
    Row(table="1", name="recreate head", paper="59.9 / 52.8 / 56.3", method="recreate-head", theft={"loss": "infonce"}),
    Row(table="1", name="access head", paper="75.6 / 65.0 / 69.8", method="access-head", theft={"loss": "infonce"}),
    *(Row(table="2", name=loss, paper=paper, theft={"loss": loss, **extra}) for loss, paper, extra in _LOSSES),
    Row(table="4", name="stealing representations (InfoNCE)", paper="75.5 / 64.6 / 69.6", theft={"loss": "infonce"}),
    *(
        Row(
            table="4",
            name=f"stealing {answer}",
            paper="65.6 / 52.4 / 32.1 as stolen; 66.9 / 56.0 / 38.1 fine-tuned" if answer == "labels" else "not given",
            method="labels",
            theft={"answer": answer},
        )
        for answer in ("labels", "posteriors", "logits")
    ),
    *(
        Row(table="9", name=f"SoftNN, {n} queries", paper=paper, theft={"loss": "softnn", "queries": n})
        for n, paper in _QUERIES.items()
    ),
    *(
        Row(table="8", name=f"{loss}, {n} queries", paper=paper, theft={"loss": loss, "queries": n})
        for loss, by_n in _SVHN_QUERIES.items()
        for n, paper in by_n.items()
    ),
    *(
        Row(
            table="17",
            name=f"{loss}, {view}",
            paper=paper,
            columns="watermark success rate, 10,000 queries",
            theft={"loss": loss, "victim_view": view},
        )
        for loss, by_view in _VIEWS.items()
        for view, paper in by_view.items()
    ),
    *(
        Row(
            table="11",
            name=f"MSE, noise of mean 0, sigma {sigma}",
            paper=paper,
            columns="CIFAR-10 top-1 of the adversary",
            theft={"loss": "mse"},
            box={"noise": float(sigma)},
        )
        for sigma, paper in _NOISE.items()
    ),
]
