"""The paper's tables: their rows, the numbers printed there, and the cells that stand beside them.

Substitutes: SVHN (victim, and out-of-distribution queries) is Fashion-MNIST, STL-10 is CIFAR-100, ImageNet is
Tiny-ImageNet's validation images at 32 x 32; scale "original" takes SVHN and STL-10 from torchvision. Tables 5 and 19
are subjects of an audit, not of this benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.paper.cells import SCALES, Cell, extraction

ACCURACY = ("cifar10", "second", "foreign")  # tasks; the scale defines the last two


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of label, the paper's numbers, and a cell."""

    title: str
    paper: str  # what the paper's numbers are
    rows: list[tuple[str, str, Cell]]
    shows: tuple[str, ...] = (*ACCURACY, "watermark", "queries")


CIFAR = "CIFAR-10 / STL-10 / SVHN, top-1"
OURS = "direct"
VIEWED = {"victim_view": "standard"}  # losses marked * in the paper use augmentations


def _losses(victim: str, source: str, printed: dict[str, str]) -> list[tuple[str, str, Cell]]:
    starred = {"supcon", "barlow", "symmetrized"}
    return [
        (loss, paper, extraction(loss, victim=victim, source=source, **(VIEWED if loss in starred else {})))
        for loss, paper in printed.items()
    ]


TABLE_2 = {
    "mse": "75.5 / 64.8 / 58.8",
    "infonce": "75.5 / 64.6 / 69.6",
    "softnn": "76.9 / 67.1 / 67.3",
    "wasserstein": "63.9 / 50.8 / 49.5",
    "supcon": "78.5 / 63.1 / 67.1",
    "barlow": "26.9 / 26.6 / 26.2",
}
TABLE_6 = {
    "mse": "51.2 / 46.3 / 80.6",
    "wasserstein": "46.4 / 40.1 / 69.4",
    "infonce": "56.3 / 50.4 / 86.2",
    "softnn": "48.4 / 44.6 / 78.6",
    "supcon": "42.3 / 33.9 / 92.1",
    "symmetrized": "49.7 / 44.0 / 66.7",
    "barlow": "17.9 / 16.3 / 19.4",
}
TABLE_3: dict[
    tuple[str, str, int], str
] = {  # loss, queries, where from: the paper's number; ours are 1/4, 1/2 and all of a smaller victim's images
    ("mse", "CIFAR-10", 2000): "75.7 / 43.9 / 27.3 / 48.7 / 61.7 (50K)",
    ("infonce", "CIFAR-10", 2000): "61.8 / 32.9 / 56.8 / 51.5 / 82.1 (50K)",
    ("mse", "held out", 2000): "47.7 / 19.3 / 13.1 / 23.8 / 82.1 (50K)",
    ("infonce", "held out", 2000): "64.0 / 35.3 / 60.4 / 63.7 / 88.7 (50K)",
    ("mse", "private", 2000): "51.0 / 17.2 / 49.5 / 39.7 / 84.7 (50K)",
    ("infonce", "private", 2000): "65.2 / 35.1 / 64.9 / 62.1 / 88.5 (50K)",
    ("mse", "private", 4000): "55.5 / 23.0 / 27.1 / 27.3 / 82.1 (100K)",
    ("infonce", "private", 4000): "68.1 / 38.9 / 63.1 / 61.5 / 89.0 (100K)",
    ("mse", "private", 8000): "56.1 / 22.6 / 47.8 / 55.4 / 87.6 (200K)",
    ("infonce", "private", 8000): "79.0 / 53.4 / 81.2 / 48.3 / 90.5 (200K)",
}
TABLE_8 = {
    "softnn": ["39.3 / 36.1 / 28.2", "40.0 / 39.6 / 40.9", "55.5 / 49.5 / 66.0", "60.4 / 53.4 / 65.9",
               "67.2 / 58.5 / 68.0", "70.8 / 58.5 / 67.3", "70.9 / 60.3 / 67.7"],
    "mse": ["36.1 / 33.2 / 39.5", "43.4 / 39.7 / 58.1", "55.6 / 47.6 / 58.7", "59.3 / 50.0 / 58.0",
            "58.1 / 50.9 / 56.6", "60.6 / 51.0 / 58.7", "61.6 / 52.7 / 59.3"],
    "infonce": ["35.7 / 31.1 / 26.4", "38.6 / 34.7 / 40.4", "50.5 / 46.6 / 72.7", "59.3 / 51.6 / 73.1",
                "69.3 / 56.6 / 72.8", "69.9 / 56.6 / 67.5", "71.8 / 57.6 / 67.1"],
}  # fmt: skip
TABLE_9 = ["47.7 / 39.3 / 45.1", "51.8 / 41.8 / 53.2", "58.4 / 49.2 / 59.1", "63.9 / 53.1 / 57.8", "67.5 / 55.3 / 58.2",
           "66.6 / 55.7 / 60.0", "65.5 / 56.3 / 58.8", "66.3 / 56.7 / 59.8"]  # fmt: skip
TABLE_10 = {0: "67.1, 66.3", 1: "65.7, 56.9", 2: "67.9, 56.8", 3: "64.0, 56.9", 4: "62.2, 55.8"}
TABLE_11 = {0: "66.7, 66.3", 1: "63.9, 64.8", 2: "67.2, 66.5", 3: "65.0, 65.5", 4: "63.1, 63.4"}
TABLE_12 = {
    ("cosine", 0): "66.9, 53.1", ("cosine", 20): "65.4, 41.2",
    ("cosine", 40): "65.3, 44.7", ("cosine", 60): "66.0, 41.8",
    ("l2", 0): "66.9, 52.2", ("l2", 20): "65.4, 44.9", ("l2", 40): "65.3, 45.7", ("l2", 60): "64.7, 45.4",
}  # fmt: skip
TABLE_16 = {  # by number of queries: MSE, SoftNN, InfoNCE
    10000: ("55.35", "55.82", "57.45"),
    20000: ("55.92", "55.32", "57.2"),
    30000: ("58.19", "54.5", "57.78"),
    50000: ("58.84", "57.11", "58.98"),
}
TABLE_17 = {  # by number of queries and loss: Standard, +Rotation, NoAug
    10000: {
        "mse": ("54.69", "73.76", "54.61"),
        "softnn": ("55.48", "74.49", "56.45"),
        "infonce": ("56.53", "56.85", "57.0"),
    },
    20000: {
        "mse": ("60.62", "74.68", "60.49"),
        "softnn": ("58.43", "76.67", "59.45"),
        "infonce": ("58.38", "59.52", "57.72"),
    },
    50000: {
        "mse": ("59.81", "76.5", "60.95"),
        "softnn": ("62.15", "78.53", "63.94"),
        "infonce": ("59.42", "63.21", "62.34"),
    },
}
TABLE_18 = {
    "9K": ("26.6", "44", "14.4"),
    "50K": ("14.6", "40", "12.8"),
    "50K, ImageNet": ("25.2", "36.2", "119.6"),
}


def tables(scale: str) -> dict[str, Table]:
    """Name -> table, in the order in which they are best measured."""
    s = SCALES[scale]
    private = s["private"]
    own, most = private["cifar10"], max(s["cifar_counts"])
    other = s["tasks"]["foreign"]
    foreign = f"{other}:train"
    victim = Cell(method="victim")
    legitimate = ("legitimate", "cifar10", "flagged")

    def by_count(loss: str) -> list[tuple[int, str, Cell]]:
        printed = dict(zip(SCALES["paper"]["counts"], TABLE_8[loss], strict=True))
        return [(n, printed[n], extraction(loss, source=foreign, queries=n)) for n in s["counts"]]

    unit = s["noise_unit"]
    noise = {sigma: {"noise": unit * sigma} for sigma in TABLE_11}
    shifted = {sigma: {**noise[sigma], "noise_mean": 10 * unit} if sigma else noise[0] for sigma in TABLE_10}
    last: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
        ("9K", "cifar10", f"{s['usual_queries']:,} queries", "cifar10:test", {}),
        ("50K", "cifar10", f"{most:,} of the victim's images", own, {"queries": most}),
        ("50K, ImageNet", "tiny-imagenet", "Tiny-ImageNet victim, 2,000 queries", "cifar10:test", {"queries": 2000}),
    )
    return {
        "1": Table(
            title="methods",
            paper=CIFAR,
            rows=[
                ("victim", "79.0 / 67.9 / 65.1", victim),
                ("an independent encoder (not in the paper)", "", Cell(method="random")),
                ("an untrained encoder (not in the paper)", "", Cell(method="untrained")),
                ("direct extraction (SoftNN)", "76.9 / 67.1 / 67.3", extraction("softnn")),
                ("recreate head (InfoNCE)", "59.9 / 52.8 / 56.3", extraction("infonce", method="recreate-head")),
                ('recreate head (MSE: not given, "hurts")', "", extraction("mse", method="recreate-head")),
                ("access head (InfoNCE)", "75.6 / 65.0 / 69.8", extraction("infonce", method="access-head")),
            ],
        ),
        "2": Table(
            title="losses",
            paper=CIFAR,
            rows=[
                ("victim", "79.0 / 67.9 / 65.1", victim),
                *_losses("cifar10", "cifar10:test", TABLE_2),
                ("softnn, temperature 5 (not in the paper)", "", extraction("softnn", temperature=5.0)),
            ],
        ),
        "4": Table(
            title="representations against labels",
            paper=CIFAR,
            shows=(*ACCURACY, "extracted classifier", "queries"),
            rows=[
                ("victim", "79.0 / 67.9 / 65.1", victim),
                ("representations (InfoNCE)", "75.5 / 64.6 / 69.6", extraction("infonce")),
                *(
                    (
                        responses,
                        "65.6 / 52.4 / 32.1 as extracted, 66.9 / 56.0 / 38.1 fine-tuned"
                        if responses == "labels"
                        else "",
                        Cell(method="labels", extraction={"output_kind": responses}),
                    )
                    for responses in ("labels", "posteriors", "logits")
                ),
            ],
        ),
        "8": Table(
            title="queries from another distribution (Table 7 is its InfoNCE column)",
            paper=CIFAR,
            rows=[
                ("victim", "79.0 / 67.9 / 65.1", victim),
                *((f"{loss}, {n}", paper, cell) for loss in TABLE_8 for n, paper, cell in by_count(loss)),
            ],
        ),
        "9": Table(
            title="queries from the victim's own images, SoftNN",
            paper="CIFAR-10 / STL-10 / SVHN, top-1; a victim of 67.3 / 74.5 / 59.3",
            rows=[
                (f"{n}", paper, extraction("softnn", source=own, queries=n))
                for n, paper in zip(SCALES["paper"]["cifar_counts"], TABLE_9, strict=True)
                if n in s["cifar_counts"]
            ],
        ),
        "16": Table(
            title="watermark success, queries from another distribution",
            paper="watermark success",
            shows=("watermark",),
            rows=[
                (f"{loss}, {n}", TABLE_16[n][i] if n in TABLE_16 else "", extraction(loss, source=foreign, queries=n))
                for i, loss in enumerate(("mse", "softnn", "infonce"))
                for n in s["counts"]
            ],
        ),
        "17": Table(
            title="watermark success, the victim's own images, by view",
            paper="watermark success",
            shows=("watermark", *ACCURACY, "queries"),
            rows=[
                (f"{loss}, {n}, {view}", printed[i], extraction(loss, source=own, queries=n, **_view(view)))
                for n, by_loss in TABLE_17.items()
                if n <= most
                for loss, printed in by_loss.items()
                for i, view in enumerate(("standard", "rotation", "none"))
            ],
        ),
        "6": Table(
            title="losses against another victim (Fashion-MNIST for SVHN)",
            paper=CIFAR,
            shows=(*ACCURACY, "queries"),
            rows=[
                ("victim", "57.5 / 50.6 / 80.5", Cell(method="victim", victim=other)),
                *_losses(other, f"{other}:test", TABLE_6),
            ],
        ),
        "3": Table(
            title="a larger task (Tiny-ImageNet for ImageNet)",
            paper="CIFAR-10 / CIFAR-100 / STL-10 / SVHN / Fashion-MNIST, top-1 (queries)",
            shows=(*ACCURACY, "queries"),
            rows=[
                ("victim", "90.33 / 71.45 / 94.9 / 79.39 / 91.9", Cell(method="victim", victim="tiny-imagenet")),
                *(
                    (f"{loss}, {where}, {n}", paper, _table_3(loss, where, n, private=private))
                    for (loss, where, n), paper in TABLE_3.items()
                ),
            ],
        ),
        "10": Table(
            title="noise of mean 10",
            paper="CIFAR-10 top-1: legitimate user, adversary (MSE)",
            shows=legitimate[:2],
            rows=[(f"sigma {k}", paper, extraction("mse", box=shifted[k])) for k, paper in TABLE_10.items()],
        ),
        "11": Table(
            title="noise of mean 0",
            paper="CIFAR-10 top-1: legitimate user, adversary (MSE)",
            shows=(*legitimate[:2], "queries"),
            rows=[
                *((f"sigma {k}", paper, extraction("mse", box=noise[k])) for k, paper in TABLE_11.items()),
                ("sigma 4, ten responses averaged", "", extraction("mse", box=noise[4], repeats=10)),
            ],
        ),
        "12": Table(
            title="noise for similar queries",
            paper="CIFAR-10 top-1: legitimate user, adversary (InfoNCE, augmented)",
            shows=legitimate,
            rows=[
                (
                    f"{metric}, sigma {k}",
                    paper,
                    extraction("infonce", box={"monitor": metric, "noise": float(k)}, **VIEWED),
                )
                for (metric, k), paper in TABLE_12.items()
            ],
        ),
        "13-15": Table(
            title="similar queries: error rates on pairs",
            paper="false positives, false negatives in %, at three thresholds",
            shows=("rates",),
            rows=[
                (label, paper, Cell(method="rates", box={"metric": metric, "head": head}))
                for label, paper, metric, head in (
                    ("l2 behind the head (13)", "4.7, 53.1; 12.3, 35.1; 27.7, 19.3", "l2", True),
                    ("l2 of representations (14)", "7.7, 49.0; 16.2, 39.5; 28.2, 26.4", "l2", False),
                    ("cosine behind the head (15)", "7.0, 34.1; 15.5, 21.3; 31.4, 9.4", "cosine", True),
                )
            ],
        ),
        "18": Table(
            title="l2 distance to the victim on its training images",
            paper="mean l2 distance (independent encoder: 34.1, 34.1, 65.8)",
            shows=("l2",),
            rows=[
                *(
                    (f"independent of {v}", "34.1" if v == "cifar10" else "65.8", Cell(method="random", victim=v))
                    for v in ("cifar10", "tiny-imagenet")
                ),
                *(
                    (
                        f"{loss}, {session} (paper: {n})",
                        TABLE_18[n][i],
                        extraction(loss, victim=v, source=source, **extra),
                    )
                    for n, v, session, source, extra in last
                    for i, loss in enumerate(("mse", "infonce", "softnn"))
                ),
            ],
        ),
        "later": Table(
            title="later and adaptive attacks (not in the paper)",
            paper="",
            rows=[
                *((m, "", Cell(method=m)) for m in ("stolen-encoder", "cont-steal", "rotated-queries")),
                *(
                    (f"rotation-invariant, {loss}", "", extraction(loss, method="rotation-invariant"))
                    for loss in ("mse", "infonce")
                ),
                ("two stages (InfoNCE, then MSE from the surrogate)", "", Cell(method="two-stage")),
            ],
        ),
        "detection": Table(
            title="extraction detection over a user's history (section 5.3)",
            paper="",
            shows=("detection",),
            rows=[("CIFAR-10 victim", "", Cell(method="detection"))],
        ),
    }


def _view(view: str) -> dict[str, str]:
    return {} if view == "none" else {"victim_view": view}


def _table_3(loss: str, where: str, n: int, *, private: dict[str, str]) -> Cell:
    source = {"CIFAR-10": "cifar10:test", "held out": "tiny-imagenet:val[8000:10100]"}
    return extraction(loss, victim="tiny-imagenet", source=source.get(where, private["tiny-imagenet"]), queries=n)
