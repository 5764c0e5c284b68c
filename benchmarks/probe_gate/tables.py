"""Tables of the probe gate."""

from __future__ import annotations

from benchmarks.common.markdown import table
from benchmarks.common.rows import RowStore


def tables() -> dict[str, str]:
    """Return the tables by name."""
    rows = RowStore("probe_gate").load()
    learned = [
        (r["data"], r["kind"], r["seed"], f"{r['auc']:.3f} ({r['low']:.3f} to {r['high']:.3f})")
        for r in sorted(rows, key=lambda r: (r["data"], r["kind"], r["seed"]))
        if r["kind"] != "known"
    ]
    known = [r for r in rows if r["kind"] == "known"]
    groups = list(dict.fromkeys((r["data"], r["suspect"], r["gate"]) for r in known))
    lines = []
    for group in groups:
        mine = [r for r in known if (r["data"], r["suspect"], r["gate"]) == group]
        shown = [", ".join(f"{r[name]:.5f}" for r in mine) for name in ("key_pvalue", "pool_pvalue")]
        lines.append((*group, *shown, ", ".join(f"{r['explained']:.3f}" for r in mine)))
    headings = ("data", "suspect", "gate", "p of the key test", "p of the test of the pool", "share explained")
    return {
        "auc": table(("data", "probes", "seed", "area under the ROC curve"), learned),
        "known": table(headings, lines),
    }
