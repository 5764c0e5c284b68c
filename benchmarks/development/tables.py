"""Tables of the development models."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.common.markdown import table
from benchmarks.common.rows import Row, RowStore

ROWS = RowStore("development", compressed=True)
LEVEL = 0.0017
"""Of one test at the final analysis, rounded: half of alpha 0.01, Holm over three tests."""


def tables() -> dict[str, str]:
    """Return the committed rows, a table for each victim."""
    return by_victim(ROWS.load())


def by_victim(rows: Sequence[Row]) -> dict[str, str]:
    """Return the distance from the decisive stratum in standard deviations; * where p is below `LEVEL`."""
    out = {}
    for data, victim in dict.fromkeys((r["data"], r["victim"]) for r in rows):
        mine = [r for r in rows if (r["data"], r["victim"]) == (data, victim)]
        names = list(dict.fromkeys(r["candidate"] for r in mine))
        lines = []
        for suspect in dict.fromkeys(r["suspect"] for r in mine):
            found = {r["candidate"]: r for r in mine if r["suspect"] == suspect}
            lines.append([suspect, *(_cell(found.get(name)) for name in names)])
        out[f"{data}-{victim}"] = table(["suspect", *names], lines)
    return out


def _cell(row: Row | None) -> str:
    return "" if row is None else f"{row['effect']:.1f}{'*' if row['pvalue'] < LEVEL else ''}"
