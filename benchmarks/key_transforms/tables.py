"""Tables of the benchmark of transforms."""

from __future__ import annotations

from statistics import mean

from benchmarks.common.markdown import table
from benchmarks.common.rows import RowStore
from ownership.plan import Plan


def tables() -> dict[str, str]:
    """Return the key test of every transform, one line each over the seeds."""
    rows = RowStore("key_transforms").load()
    groups = dict.fromkeys((row["encoder"], row["transform"]) for row in rows)
    level, lines = Plan().key_alpha, []
    for encoder, transform in groups:
        of = [row for row in rows if (row["encoder"], row["transform"]) == (encoder, transform)]
        found = sum(row["pvalue"] <= level for row in of)
        pvalues = ", ".join(f"{row['pvalue']:.5f}" for row in of)
        z = " / ".join(f"{mean(row['z'][name] for row in of):.1f}" for name in of[0]["z"])
        accuracy = f"{100 * mean(row['accuracy'] for row in of):.1f}"
        shown = transform if encoder == "surrogate" else f"{encoder}, no transform"
        lines.append([shown, str(of[0]["dim"]), f"{found} of {len(of)}", pvalues, z, accuracy])
    headings = (
        "transform",
        "dimensions",
        "found",
        "p of each seed",
        "mean z, content / invariant",
        "accuracy, %",
    )
    return {"transforms": table(headings, lines)}
