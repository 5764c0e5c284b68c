"""Tables of panel sizes."""

from __future__ import annotations

from benchmarks.common.markdown import table
from benchmarks.common.rows import RowStore


def tables() -> dict[str, str]:
    """Return size, power and the rule's error rate by panel size and population."""
    lines = [
        [
            row["members"],
            row["population"],
            f"{row['size']:.4f}",
            f"{row['size_plain_only']:.3f}",
            ", ".join(f"{row['power'][d]:.2f}" for d in ("5", "8", "12")),
            f"{row['rule_error_rate']:.4f}",
        ]
        for row in RowStore("panel_size").load()
    ]
    headings = ("members a stratum", "population", "size", "size without watermarked members", "power at 5, 8, 12 sd")
    return {"sizes": table([*headings, "error rate of the whole rule"], lines)}
