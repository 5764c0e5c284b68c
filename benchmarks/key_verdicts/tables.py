"""Tables of the key's benchmark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from benchmarks.common.markdown import table
from benchmarks.common.rows import Row, RowStore
from benchmarks.key_verdicts.bench import ALPHAS, FRESH_FRAMES, FRESH_SECRETS
from benchmarks.verdicts.design import SCALES
from benchmarks.verdicts.groups import is_close, is_plain, is_useful
from ownership.plan import Plan
from ownership.stats import binomial_interval

LEVEL = Plan().key_alpha
FRESH = FRESH_SECRETS * FRESH_FRAMES
Group = tuple[str, Callable[[Row], bool]]


def rows_of(data: str) -> list[Row]:
    """Return the rows of a data set; those of surrogates with the utility of their victim."""
    rows = [row for row in RowStore("key_verdicts", compressed=True).load() if row["data"] == data]
    utility = {row["victim"]: row["utility"] for row in rows if row["role"] == "victim"}
    return [row | {"victim_utility": utility[row["victim"]]} if row["role"] == "surrogate" else row for row in rows]


def rate(found: int, of: int) -> str:
    """Return a rate with its 95 % interval (Clopper and Pearson)."""
    if not of:
        return "-"
    low, high = binomial_interval(found, of)
    return f"{found} of {of} ({low:.3f} to {high:.3f})"


def found_in(rows: Sequence[Row]) -> str:
    """Return how many tests reject at the default level."""
    return rate(sum(row["pvalue"] <= LEVEL for row in rows), len(rows))


def groups(rows: Sequence[Row], data: str) -> list[Group]:
    """Return the groups of surrogates, by name."""
    independents = [row for row in rows if row["role"] == "independent"]
    grown = SCALES[data].fine_tuned

    def answers_transformed(row: Row) -> bool:
        return bool(row["output_transform"]) and not row["weight_transforms"]

    return [
        (
            "plain extraction, 2,048 queries and more, useful",
            lambda r: is_plain(r) and r["images"] >= 2048 and r["kind"] not in MORE and is_useful(r, independents),
        ),
        ("plain extraction, all", lambda r: is_plain(r) and r["kind"] not in MORE),
        ("output transforms", answers_transformed),
        (
            "weight transforms, within two points of the victim",
            lambda r: bool(r["weight_transforms"]) and r["kind"] != "overwritten" and is_close(r),
        ),
        ("weight transforms, all", lambda r: bool(r["weight_transforms"]) and r["kind"] != "overwritten"),
        (
            "a key of the attacker's own embedded, within two points",
            lambda r: r["kind"] == "overwritten" and is_close(r),
        ),
        ("augmented queries (augmented, StolenEncoder, Cont-Steal)", lambda r: r["kind"] == "augmented"),
        ("rotated copies, within two points", lambda r: r["method"] == "rotated" and is_close(r)),
        ("rotated copies, all", lambda r: r["method"] == "rotated"),
        (
            "rotated SimCLR views, within two points",
            lambda r: r["method"] == "rotation-invariant" and is_close(r),
        ),
        ("rotated SimCLR views, all", lambda r: r["method"] == "rotation-invariant"),
        ("victims grown from a public checkpoint: all surrogates", lambda r: r["victim"] in grown),
    ]


MORE = ("augmented", "overwritten")
"""Kinds that have a row of their own."""


def detection(data: str) -> str:
    """Return how many surrogates of each group are found."""
    rows = rows_of(data)
    surrogates = [row for row in rows if row["role"] == "surrogate"]
    lines = [(name, found_in([r for r in surrogates if belongs(r)])) for name, belongs in groups(rows, data)]
    return table(("surrogates", "found at 0.0001"), lines)


def missed(data: str) -> str:
    """Return every surrogate that is not found."""
    lines = [
        (
            row["victim"],
            row["kind"],
            row["method"],
            row["loss"],
            row["images"],
            row["weight_transforms"] or row["output_transform"] or "-",
            f"{row['pvalue']:.5f}",
            f"{100 * (row['victim_utility'] - row['utility']):.1f}",
        )
        for row in rows_of(data)
        if row["role"] == "surrogate" and row["pvalue"] > LEVEL
    ]
    headings = ("victim", "kind", "method", "loss", "queries", "transform", "p", "points below the victim")
    return table(headings, sorted(lines, key=str))


def size(data: str) -> str:
    """Return, by kind, the tests of independent encoders, and the rejections of fresh keys."""
    kinds: dict[str, list[Row]] = defaultdict(list)
    for row in rows_of(data):
        if row["role"] == "independent":
            kinds[row["kind"]].append(row)
    lines = [_size_line(kind, of) for kind, of in sorted(kinds.items())]
    lines.append(_size_line("all", [row for of in kinds.values() for row in of]))
    shares = [f"rejected at {a:g}" for a in ALPHAS]
    headings = ("kind", "tests", "called copies", "smallest p", "encoders with 10,000 fresh keys", *shares)
    return table(headings, lines)


def _size_line(kind: str, rows: Sequence[Row]) -> list[str]:
    fresh = [row["rejections"] for row in rows if "rejections" in row]
    shares = [f"{sum(r[str(a)] for r in fresh) / (FRESH * len(fresh)):.5f}" if fresh else "-" for a in ALPHAS]
    copies = sum(row["pvalue"] <= LEVEL for row in rows)
    return [kind, str(len(rows)), str(copies), f"{min(r['pvalue'] for r in rows):.4f}", str(len(fresh)), *shares]


def deviations(data: str) -> str:
    """Return the largest deviation of an encoder's rejections from nominal, in binomial standard errors."""
    fresh = [row["rejections"] for row in rows_of(data) if row["role"] == "independent" and "rejections" in row]
    lines = []
    for a in ALPHAS:
        error = (a * (1 - a) / FRESH) ** 0.5
        off = sorted((r[str(a)] / FRESH - a) / error for r in fresh)
        outside = sum(abs(x) > 1.96 for x in off)
        lines.append((f"{a:g}", len(off), f"{off[0]:.1f} to {off[-1]:.1f}" if off else "-", outside))
    return table(("level", "encoders", "range, standard errors", "outside 1.96"), lines)


def price(data: str) -> str:
    """Return the linear probe of each victim beside that of its twin without a watermark."""
    rows = rows_of(data)
    twins = {row["of"]: row["utility"] for row in rows if row["kind"] == "plain twin"}
    lines = [
        (
            row["victim"],
            "public checkpoint" if row["victim"] in SCALES[data].fine_tuned else "random weights",
            f"{100 * row['utility']:.2f}",
            f"{100 * twins[row['victim']]:.2f}",
            f"{100 * (twins[row['victim']] - row['utility']):.2f}",
            f"{row['pvalue']:.5f}",
            " / ".join(f"{z:.1f}" for z in row["z"].values()),
        )
        for row in rows
        if row["role"] == "victim"
    ]
    headings = (
        "victim",
        "trained from",
        "watermarked, %",
        "twin, %",
        "price, points",
        "p of the victim itself",
        "z, content / invariant",
    )
    return table(headings, sorted(lines))


def tables() -> dict[str, str]:
    """Return every table by name, for each data set that has rows."""
    out: dict[str, str] = {}
    for data in SCALES:
        if rows_of(data):
            made = {"detection": detection, "missed": missed, "size": size, "deviations": deviations, "price": price}
            out |= {f"{data}-{name}": make(data) for name, make in made.items()}
    return out
