"""Figure of the benchmark of evasions: what each costs, against what is left of the statistic."""

from __future__ import annotations

import io
from statistics import mean

from benchmarks.common.rows import Row
from benchmarks.evasion.design import WEIGHTS
from benchmarks.evasion.tables import COPIES, DATA, rows_of, with_losses
from benchmarks.key_verdicts.tables import LEVEL

NAMED = 8
"""Cheapest evasions that are named among those that hide a copy."""


def figures() -> dict[str, bytes]:
    """Return the PNG file: one panel a data set."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sets = [data for data in DATA if rows_of(data)]
    figure, axes = plt.subplots(1, len(sets), figsize=(5.2 * len(sets), 4.2), squeeze=False, layout="constrained")
    for axis, data in zip(axes[0], sets, strict=True):
        rows = list(with_losses(rows_of(data)))
        for role, marker in zip(COPIES, "os", strict=True):
            for weights in (False, True):
                mine = [r for r in rows if r["role"] == role and (r["evasion"] in WEIGHTS) is weights]
                axis.scatter(
                    [100 * r["lost linear"] for r in mine],
                    [max(r["statistic"], 1) for r in mine],
                    marker=marker,
                    s=22,
                    facecolors=["black" if r["pvalue"] <= LEVEL else "none" for r in mine],
                    edgecolors="tab:blue" if weights else "black",
                    linewidths=0.8,
                    label=f"{role}, {'weights' if weights else 'outputs'}" if mine else None,
                )
        for evasion, lost, statistic in _cheapest_hidden(rows):
            axis.annotate(evasion, (lost, statistic), fontsize=6, xytext=(3, 3), textcoords="offset points")
        axis.set_yscale("log")
        axis.set_xlabel("points of linear classification lost")
        axis.set_ylabel("statistic T of the key test")
        axis.set_title(data)
    axes[0][-1].legend(fontsize=8, title="filled: found", title_fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return {"evasion.png": out.getvalue()}


def _cheapest_hidden(rows: list[Row]) -> list[tuple[str, float, float]]:
    """Return the cheapest evasions behind which a copy is not found: name, mean points lost, mean statistic."""
    hidden = [r for r in rows if r["role"] in COPIES and r["pvalue"] > LEVEL]
    found = []
    for evasion in {r["evasion"] for r in hidden}:
        mine = [r for r in hidden if r["evasion"] == evasion]
        place = 100 * mean(r["lost linear"] for r in mine), max(mean(r["statistic"] for r in mine), 1)
        found.append((str(evasion), *place))
    return sorted(found, key=lambda line: line[1])[:NAMED]
