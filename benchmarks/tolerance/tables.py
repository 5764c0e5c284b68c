"""Tables of the tolerance benchmark."""

from __future__ import annotations

from benchmarks.common.markdown import table
from benchmarks.common.rows import RowStore

SURROGATES = ("mse", "infonce", "softnn")
"""Names of the surrogates (their losses) in the rows; the other names are of independent encoders."""


def tables() -> dict[str, str]:
    """Return the verdicts and the weakest surrogate's relative partial RSA in each case."""
    lines = []
    for row in RowStore("tolerance").load():
        found = [row["supported"][n] for n in SURROGATES]
        positives = [hit for name, hit in row["supported"].items() if name not in SURROGATES]
        weakest = min(row["relative"][n] for n in SURROGATES)
        counts = [f"{sum(hits)} of {len(hits)}" for hits in (found, positives)]
        lines.append([row["case"], *counts, f"{weakest:.1f}"])
    headings = ("change by the provider", "surrogates found", "false positives, independent encoders")
    return {"cases": table([*headings, "relative partial RSA of the weakest surrogate"], lines)}
