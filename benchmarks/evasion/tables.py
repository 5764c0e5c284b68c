"""Tables of the benchmark of evasions: a price list, sorted by what the attacker keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import mean

from benchmarks.common.markdown import table
from benchmarks.common.rows import Row, RowStore
from benchmarks.evasion.design import EVASIONS, KNOWN, QUERY_TIME, REVIEWED, WEIGHTS
from benchmarks.evasion.panel import STATISTICS
from benchmarks.key_verdicts.tables import LEVEL, found_in, rate

DATA = ("digits", "fashion-mnist", "cifar10")
CLOSE = 0.02
"""Accuracy that an evasion within two points may cost."""
PANEL_LEVEL = 0.01 / 3
"""Level of one of three primary tests of the panel."""
UTILITIES = ("linear", "knn", "few")
COPIES = ("victim", "surrogate")


def rows_of(data: str) -> list[Row]:
    """Return the rows of a data set, of the keys that are measured to the end: independent encoders come last."""
    rows = [row for row in RowStore("evasion", compressed=True).load() if row["data"] == data]
    done = {(r["of"], r["probes"]) for r in rows if r["role"] == "independent"}
    return [r for r in rows if (r["of"], r["probes"]) in done]


def with_losses(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield the priced rows with what the evasion costs: accuracy without it less accuracy with it."""
    plain = {(r["of"], r["name"]): r for r in rows if not r["evasion"] and "linear" in r}
    for row in rows:
        if "linear" in row and row["evasion"]:
            before = plain[row["of"], row["name"]]
            yield row | {f"lost {name}": before[name] - row[name] for name in UTILITIES}


def prices(data: str, evasions: Sequence[str] = EVASIONS) -> str:
    """Return each evasion's price and how many copies behind it are found, the cheapest evasion first."""
    rows = list(with_losses(rows_of(data)))
    lines = []
    for evasion in evasions:
        mine = [r for r in rows if r["evasion"] == evasion]
        if not mine:
            continue
        copies = [r for r in mine if r["role"] in COPIES]
        lost = [mean(r[f"lost {name}"] for r in copies) for name in UTILITIES]
        close = [r for r in copies if r["lost linear"] <= CLOSE]
        worst = max(r["pvalue"] for r in copies)
        cells = [
            f"`{evasion}`",
            "-".join(map(str, sorted({min(r["dim"] for r in mine), max(r["dim"] for r in mine)}))),
            *(f"{100 * x:.1f}" for x in lost),
            *(_found([r for r in copies if r["role"] == role]) for role in COPIES),
            _found(close),
            f"{worst:.5f}",
        ]
        lines.append((lost[0], cells))
    headings = (
        "evasion", "dimensions", "points lost: linear", "neighbours", "few labels", "victim found", "surrogate found",
        "found of those within two points", "largest p",
    )  # fmt: skip
    return table(headings, [cells for _, cells in sorted(lines, key=lambda line: line[0])])


def reviewed(data: str) -> str:
    """Return how many surrogates are found behind the evasions of the adversarial review, and without one."""
    rows = [r for r in rows_of(data) if r["role"] == "surrogate"]
    lines = []
    for victim, probes in sorted({(r["of"], r["probes"]) for r in rows}):
        of = [r for r in rows if (r["of"], r["probes"]) == (victim, probes)]
        before = {r["name"] for r in of if not r["evasion"] and r["pvalue"] <= LEVEL}
        for evasion in ("", *REVIEWED):
            mine = [r for r in of if r["evasion"] == evasion]
            kept = [r for r in mine if r["name"] in before]
            lines.append((victim, f"{probes:,}", f"`{evasion}`" if evasion else "none", found_in(mine), found_in(kept)))
    return table(("key of", "probes", "evasion", "surrogates found", "of those that are found without it"), lines)


def panels(data: str) -> str:
    """Return in how many seeds each distance statistic of the panel rejects, and the smallest p of independents."""
    rows = [r for r in rows_of(data) if "panel" in r]
    lines = []
    for evasion in ("", *EVASIONS):
        mine = [r for r in rows if r["evasion"] == evasion]
        if not mine:
            continue
        cells = []
        for name in STATISTICS:
            for role in COPIES:
                found = [r["panel"][name] for r in mine if r["role"] == role]
                cells.append(f"{sum(p <= PANEL_LEVEL for p in found)} of {len(found)}")
            cells.append(f"{min((r['panel'][name] for r in mine if r['role'] == 'independent'), default=1):.4f}")
        lines.append((f"`{evasion}`" if evasion else "none", *cells))
    headings = [f"{name}: {what}" for name in STATISTICS for what in ("victim", "surrogate", "independent, smallest p")]
    return table(("evasion", *headings), lines)


def query_time(data: str) -> str:
    """Return how many surrogates of each evasive extraction method are found, and what they have of the victim."""
    rows = [r for r in rows_of(data) if not r["evasion"]]
    victims = {r["of"]: r for r in rows if r["name"] == "victim"}
    groups = {f"{method}, {loss}": (f"`{method}`", loss) for method, loss in (*QUERY_TIME, *KNOWN)}
    lines = []
    for name, heading in groups.items():
        lines += _line(heading, [r for r in rows if r["role"] == "query-time" and r["name"] == name], victims)
    lines += _line(("plain surrogates", "-"), [r for r in rows if r["role"] == "surrogate"], victims)
    lines += _line(("independent encoders", "-"), [r for r in rows if r["role"] == "independent"], victims)
    headings = (
        "method", "loss", "points below the victim", "share of the victim", "found",
        "found of those within two points", "largest p",
    )  # fmt: skip
    return table(headings, lines)


def _line(heading: tuple[str, str], rows: Sequence[Row], victims: dict[str, Row]) -> list[tuple[str, ...]]:
    if not rows:
        return []
    below = {r["key"]: 100 * (victims[r["of"]]["linear"] - r["linear"]) for r in rows if "linear" in r}
    close = [r for r in rows if below.get(r["key"], 100) <= 100 * CLOSE]
    share = [r["victim_share"] for r in rows]
    return [
        (
            *heading,
            f"{min(below.values()):.1f} to {max(below.values()):.1f}",
            f"{min(share):.2f} to {max(share):.2f}",
            _found(rows),
            _found(close),
            f"{max(r['pvalue'] for r in rows):.5f}",
        )
    ]


def independents(data: str) -> str:
    """Return the p-values of independent encoders behind evasions."""
    rows = [r for r in rows_of(data) if r["role"] == "independent"]
    lines = [
        (
            name,
            len(mine),
            rate(sum(r["pvalue"] <= LEVEL for r in mine), len(mine)),
            f"{min(r['pvalue'] for r in mine):.4f}",
            *(f"{sum(r['pvalue'] <= a for r in mine) / len(mine):.3f}" for a in (0.5, 0.05, 0.01)),
        )
        for name, mine in (
            ("none", [r for r in rows if not r["evasion"]]),
            ("any", [r for r in rows if r["evasion"]]),
        )
        if mine
    ]
    shares = [f"p at most {a}" for a in (0.5, 0.05, 0.01)]
    return table(("evasion", "tests", "called copies", "smallest p", *shares), lines)


def _found(rows: Sequence[Row]) -> str:
    return f"{sum(r['pvalue'] <= LEVEL for r in rows)} of {len(rows)}"


def tables() -> dict[str, str]:
    """Return the tables by name."""
    made: dict[str, Callable[[str], str]] = {
        "prices": prices,
        "reviewed": reviewed,
        "weights": lambda data: prices(data, WEIGHTS),
        "query-time": query_time,
        "independents": independents,
        "panel": panels,
    }
    return {f"{data}-{name}": make(data) for data in DATA for name, make in made.items()}
