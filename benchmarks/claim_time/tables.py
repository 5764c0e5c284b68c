"""Tables of the time of a claim."""

from __future__ import annotations

from benchmarks.common.markdown import table
from benchmarks.common.rows import RowStore


def tables() -> dict[str, str]:
    """Return the tables by name."""
    lines = [
        [
            r["case"],
            r["cpu"],
            f"{r['probes']:,}",
            f"{r['bare']:.0f}" if "bare" in r else "–",
            f"{r['seconds']:.0f}",
            f"{r['beyond']:.0f}" if "beyond" in r else "–",
        ]
        for r in RowStore("claim_time").load()
    ]
    headings = ("victim", "CPU", "probes", "bare inference, s", "claim build, s", "beyond 1.1 of bare inference, s")
    return {"seconds": table(headings, lines)}
