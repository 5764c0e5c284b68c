"""Tables of the benchmark of public ImageNet encoders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from benchmarks.common.markdown import table
from benchmarks.common.rows import Row, RowStore
from benchmarks.key_imagenet.run import SEED
from ownership.plan import Plan
from ownership.stats import binomial_interval
from ownership.verdict.rule import MIN_PROBES_PER_DIMENSION

LEVEL = Plan().key_alpha
TASKS = ("Tiny-ImageNet", "CIFAR-10")


def rows_of(role: str) -> list[Row]:
    """Return the judged rows of a role."""
    return [row for row in RowStore("key_imagenet").load() if row["role"] == role and row["seed"] == SEED]


def rate(rows: Sequence[Row]) -> str:
    """Return how many tests reject, with the 95 % interval of the rate (Clopper and Pearson)."""
    if not rows:
        return "-"
    found = sum(row["pvalue"] <= LEVEL for row in rows)
    low, high = binomial_interval(found, len(rows))
    return f"{found} of {len(rows)} ({low:.3f} to {high:.3f})"


def difference(lost: int, won: int, of: int) -> str:
    """Return the accuracy that is lost, in points, with its 95 % interval: paired, normal approximation.

    Args:
        lost: test images that only the encoder before gets right.
        won: test images that only the encoder after gets right.
        of: test images.
    """
    loss = (lost - won) / of
    error = ((lost + won) / of - loss**2) ** 0.5 / of**0.5
    return f"{100 * loss:.2f} ({100 * (loss - 1.96 * error):.2f} to {100 * (loss + 1.96 * error):.2f})"


def victims() -> str:
    """Return what each victim's own test says, and what the embedding cost."""
    lines = [
        (
            row["claim"],
            f"{row['minutes']:.1f}",
            f"{row['moved']:.3f}",
            f"{row['pvalue']:.5f}",
            " / ".join(f"{z:.1f}" for z in row["z"].values()),
            *(
                f"{100 * row[f'before {t}']:.1f}, {difference(row[f'lost {t}'], row[f'won {t}'], row[f'of {t}'])}"
                for t in TASKS
            ),
        )
        for row in rows_of("victim")
    ]
    headings = (
        "encoder and key",
        "minutes of one core",
        "moved, of the variance",
        "p of itself",
        "z, content / invariant",
        *(f"linear probe {t}: before, lost" for t in TASKS),
    )
    return table(headings, sorted(lines))


def detection() -> str:
    """Return p-value and distance of the surrogates, one row a kind and transform of the outputs."""
    found: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    for row in rows_of("surrogate"):
        found[row["kind"], row["output"]][row["claim"]] = row
    claims = sorted({claim for of in found.values() for claim in of})
    lines = [
        [kind, output or "-", *(_cell(of[c]) if c in of else "-" for c in claims)]
        for (kind, output), of in found.items()
    ]
    plain = [row for row in rows_of("surrogate") if not row["output"]]
    changed = [row for row in rows_of("surrogate") if row["output"]]
    for name, rows in (("found, outputs as they are", plain), ("found, outputs transformed", changed)):
        lines.append([name, rate(rows), *(rate([r for r in rows if r["claim"] == c]) for c in claims)])
    return table(("surrogate", "outputs", *(f"{c}: p, distance" for c in claims)), lines)


def _cell(row: Row) -> str:
    return f"{row['pvalue']:.5f}" + ("" if row["output"] else f", {row['distance']:.2f}")


def size() -> str:
    """Return the tests of independent encoders by kind."""
    kinds: dict[str, list[Row]] = defaultdict(list)
    for row in rows_of("independent"):
        kinds[row["kind"]].append(row)
    kinds["all"] = rows_of("independent")
    lines = [
        (
            kind,
            len({(r["encoder"], r.get("teacher"), r.get("start")) for r in rows}),
            len(rows),
            sum(r["pvalue"] <= LEVEL for r in rows),
            f"{min(r['pvalue'] for r in rows):.4f}",
            sum(r["pvalue"] > LEVEL and r["dim"] * MIN_PROBES_PER_DIMENSION > r["probes"] for r in rows),
        )
        for kind, rows in kinds.items()
        if rows
    ]
    headings = ("kind", "encoders", "tests", "called copies", "smallest p", "inconclusive: too few probes")
    return table(headings, lines)


def tables() -> dict[str, str]:
    """Return every table by name."""
    return {"victims": victims(), "detection": detection(), "size": size()}
