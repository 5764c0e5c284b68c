"""Tables of the paper, its numbers beside ours."""

from __future__ import annotations

from benchmarks.common import markdown
from benchmarks.common.rows import Row, RowStore
from benchmarks.paper.cells import SCALES, identity
from benchmarks.paper.design import Table
from benchmarks.paper.design import tables as published

ROWS = RowStore("paper")
SCALE = "cpu"
"""The scale that was run."""


def done() -> dict[tuple[str, str], Row]:
    """Return the rows by `Cell.of`."""
    return {identity(row): row for row in ROWS.load()}


def percent(x: float) -> str:
    """Return a share in percent."""
    return f"{100 * x:.1f}"


def show(column: str, m: Row, scale: str) -> str:
    """Return one number of a cell, as text."""
    column = SCALES[scale]["tasks"].get(column, column)
    if column in m.get("accuracy", {}):
        return percent(m["accuracy"][column]["accuracy"])
    if column == "rates":
        pairs = [f"{percent(r['false_positive'][0])}, {percent(r['false_negative'][0])}" for r in m["rates"]]
        return "; ".join(pairs)
    if column not in m:
        return "–"
    if column == "queries":
        return f"{m['queries']:,} ({m['unique_images']:,})"
    if column == "flagged":
        return f"{percent(m['flagged']['legitimate'])}, {percent(m['flagged']['adversary'])}"
    if column == "l2":
        return f"{m['l2']:.2f}"
    return percent(m[column]) if isinstance(m[column], float) else str(m[column])


HEADINGS = {
    "watermark": "watermark success",
    "queries": "representations queried (images)",
    "flagged": "queries flagged: legitimate, adversary",
    "legitimate": "legitimate user, cifar10",
    "rates": "false positives, false negatives",
}


def tables() -> dict[str, str]:
    """Return the measured tables by name, "table-1" and so on."""
    rows, out = done(), {}
    for name, table in sorted(published(SCALE).items(), key=lambda item: _order(item[0])):
        if any(cell.of(SCALE) in rows for _, _, cell in table.rows):
            out[f"table-{name}" if name[0].isdigit() else name] = _one(table, SCALE, rows)
    return out


def _one(table: Table, scale: str, rows: dict[tuple[str, str], Row]) -> str:
    if table.shows == ("detection",):
        return _detection(rows[table.rows[0][2].of(scale)]["measured"]["detection"])
    printed = any(paper for _, paper, _ in table.rows)
    headings = [" ", *(["paper"] if printed else [])]
    headings += [SCALES[scale]["tasks"].get(c, HEADINGS.get(c, c)) for c in table.shows]
    lines = []
    for label, paper, cell in table.rows:
        row = rows.get(cell.of(scale))
        values = [show(c, row["measured"], scale) if row else "not run" for c in table.shows]
        lines.append([label, *([paper] if printed else []), *values])
    text = markdown.table(headings, lines)
    return f"The paper's column: {table.paper}.\n\n{text}" if table.paper else text


def _detection(found: Row) -> str:
    names = list(found["false_alarms"])
    honest = ["honest users, share that raise an alarm", "", *(f"{found['false_alarms'][n]:.2f}" for n in names)]
    lines = [
        [name, ", ".join(r["alarms"]) or "none", *(f"{r[n]:.3f}" for n in names)]
        for name, r in found["attackers"].items()
    ]
    return markdown.table(["queries", "alarms", *names], [honest, *lines])


def _order(name: str) -> tuple[int, str]:
    head = name.split("-")[0]
    return (int(head) if head.isdigit() else 99, name)
