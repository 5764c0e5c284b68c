"""Figures of the verdict benchmark."""

from __future__ import annotations

import io
from collections.abc import Callable

from attacks_for_eval.evaluation.rates import draw_roc
from benchmarks.common.rows import Row
from benchmarks.verdicts.groups import FULL_SIZE, is_plain, panel_of
from benchmarks.verdicts.tables import ROWS
from ownership.plan import PRIMARY_TESTS

GROUPS: dict[str, tuple[str, Callable[[Row], bool]]] = {
    "independent": ("o", lambda r: r["role"] == "independent"),
    "surrogate": ("^", is_plain),
    "surrogate, weights transformed": (
        "s",
        lambda r: bool(r["weight_transforms"]) or r["output_transform"] == "average",
    ),
    "surrogate, rotation-invariant": ("D", lambda r: r["kind"] == "rotation-invariant"),
}
"""Group of the price curve -> marker, members."""


def figures() -> dict[str, bytes]:
    """Return the PNG files: the price of evasion, and ROC curves on Fashion-MNIST."""
    rows = [r for r in ROWS.load() if panel_of(r) == FULL_SIZE]
    return {"price.png": _prices(rows), "roc.png": draw_roc([r for r in rows if r["data"] == "fashion-mnist"])}


def _prices(rows: list[Row]) -> bytes:
    """Draw what an attacker loses in linear-probe accuracy against the evidence that is left."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sets = sorted({r["data"] for r in rows}, reverse=True)
    figure, axes = plt.subplots(1, len(sets), figsize=(5.5 * len(sets), 4.2), squeeze=False, layout="constrained")
    for axis, data in zip(axes[0], sets, strict=True):
        mine = [r for r in rows if r["data"] == data and r["output_transform"] in ("", "average")]
        for name, (marker, belongs) in GROUPS.items():
            for found in (True, False):
                group = [r for r in mine if belongs(r) and (r["verdict"] == "SUPPORTED") is found]
                grey = name == "independent"
                axis.scatter(
                    [100 * (r["victim_utility"] - r["utility"]) for r in group],
                    [_evidence(r) for r in group],
                    marker=marker,
                    s=10 if grey else 28,
                    label=name if found is not grey else None,
                    edgecolors="0.6" if grey else "black",
                    facecolors="black" if found else "none",
                    linewidths=0.8,
                )
        axis.set_yscale("symlog", linthresh=5)
        axis.set_xlabel("points of linear probe below the victim")
        axis.set_ylabel("largest distance from the panel, sd")
        axis.set_title(data)
    axes[0][0].legend(fontsize=8, title="filled: SUPPORTED", title_fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return out.getvalue()


def _evidence(row: Row) -> float:
    """Return the largest effect over the primary tests, in the decisive stratum's standard deviations."""
    return max(float(row[key]) for key in (f"{name}.effect" for name in PRIMARY_TESTS) if row.get(key) is not None)
