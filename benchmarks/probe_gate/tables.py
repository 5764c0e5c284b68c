"""Table of the probe gate."""

from __future__ import annotations

from benchmarks.common.markdown import table
from benchmarks.common.rows import RowStore


def tables() -> dict[str, str]:
    """Return the tables by name."""
    lines = [
        (r["data"], r["kind"], r["seed"], f"{r['auc']:.3f} ({r['low']:.3f} to {r['high']:.3f})")
        for r in sorted(RowStore("probe_gate").load(), key=lambda r: (r["data"], r["kind"], r["seed"]))
    ]
    return {"auc": table(("data", "probes", "seed", "area under the ROC curve"), lines)}
