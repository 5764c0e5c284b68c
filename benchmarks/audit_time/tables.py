"""Tables of audit time."""

from __future__ import annotations

from benchmarks.common.markdown import table
from benchmarks.common.rows import RowStore


def tables() -> dict[str, str]:
    """Return the seconds of each round, and the ratios of the fastest."""
    lines = []
    for row in RowStore("audit_time").load():
        shown = [", ".join(f"{s:.1f}" for s in row["rounds"].get(n, ())) for n in ("bare", "in_process", "sandboxed")]
        sandbox = f"{row['sandbox_ratio']:.2f}" if "sandbox_ratio" in row else "–"
        lines.append([shown[0], shown[1], f"{row['ratio']:.2f}", shown[2] or "–", sandbox])
    headings = (
        "bare inference, s",
        "audit in process, s",
        "audit / bare",
        "audit in the sandbox, loading included, s",
        "sandbox / in process",
    )
    return {"rounds": table(headings, lines)}
