"""Figure 2 of the paper, from our rows."""

from __future__ import annotations

import io

from benchmarks.paper.cells import Cell
from benchmarks.paper.design import tables as published
from benchmarks.paper.tables import SCALE, done


def figures() -> dict[str, bytes]:
    """Return Figure 2: watermark success by loss and number of queries, an independent encoder beside it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = done()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
    panels = {"queries from another distribution": ("16",), "the victim's own images": ("9", "17")}
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for _, _, cell in [row for name in names for row in published(SCALE)[name].rows]:
            if "victim_view" not in cell.extraction and (row := rows.get(cell.of(SCALE))):
                point = (cell.extraction["queries"], row["measured"]["watermark"])
                lines.setdefault(cell.extraction["loss"], []).append(point)
        for loss, points in lines.items():
            style = {"mse": "o-", "softnn": "s--", "infonce": "^:"}[loss]
            axis.plot(
                *zip(*sorted(set(points)), strict=True), style, label=loss, color="black", markerfacecolor="white"
            )
        if row := rows.get(Cell(method="random").of(SCALE)):
            axis.axhline(row["measured"]["watermark"], color="grey", label="independent encoder")
        axis.set(title=title, xlabel="queries", xscale="log", xlim=(400, 60_000))
    axes[0].set_ylabel("watermark success rate")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, dpi=110)
    plt.close(figure)
    return {"figure-2.png": out.getvalue()}
