"""The paper's tables: their rows, the numbers printed there (`published.py`), and the cells that stand beside them.

Substitutes: SVHN (victim, and out-of-distribution queries) is Fashion-MNIST, STL-10 is CIFAR-100, ImageNet is
Tiny-ImageNet's validation images at 32 x 32; scale "original" takes SVHN and STL-10 from torchvision. Tables 5 and 19
are subjects of an audit, not of this benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.paper.cells import SCALES, Cell, extraction
from benchmarks.paper.published import (
    TABLE_2,
    TABLE_3,
    TABLE_6,
    TABLE_8,
    TABLE_9,
    TABLE_10,
    TABLE_11,
    TABLE_12,
    TABLE_16,
    TABLE_17,
    TABLE_18,
)

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
