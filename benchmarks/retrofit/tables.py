"""Tables of the retrofit benchmark."""

from __future__ import annotations

from benchmarks.common.markdown import table
from benchmarks.common.rows import RowStore


def tables() -> dict[str, str]:
    """Return what the watermark costs, and the verdicts by suspect and panel."""
    rows = RowStore("retrofit").load()
    models = [
        [r["seed"], f"{r['head']:.3f}", f"{r['old_head']:.3f}", f"{r['new_head']:.3f}", f"{r['watermark']:.3f}"]
        for r in rows
        if r["what"] == "model"
    ]
    audits = [r for r in rows if r["what"] == "audit"]
    panels, lines = list(dict.fromkeys(r["panel"] for r in audits)), []
    for kind in dict.fromkeys(r["kind"] for r in audits):
        mine = [r for r in audits if r["kind"] == kind]
        verdicts = [", ".join(sorted({r["verdict"] for r in mine if r["panel"] == panel})) for panel in panels]
        lines.append(
            [kind, len(mine) // len(panels), *verdicts, f"{sum(r['watermark'] for r in mine) / len(mine):.3f}"]
        )
    head = (
        "seed",
        "head fitted before: on the checkpoint",
        "on the watermarked model",
        "head fitted after",
        "watermark",
    )
    return {
        "models": table(head, models),
        "audits": table(["suspect", "suspects", *(f"panel: {p}" for p in panels), "watermark success, mean"], lines),
    }
