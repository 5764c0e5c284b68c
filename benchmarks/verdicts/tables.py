"""The tables of docs/results.md from committed rows: what was accused, what was found, at what price."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from attacks_for_eval.rates import Rate, bootstrap_over, rates

Row = dict[str, Any]


def print_tables(rows: Sequence[Row]) -> None:
    """Prints everything that the rows say, as Markdown."""
    for data in sorted({r["data"] for r in rows}):
        mine = [r for r in rows if r["data"] == data]
        independents = [r for r in mine if r["role"] == "independent"]
        surrogates = [r for r in mine if r["role"] == "surrogate"]
        print(f"\n### {data}: independents called copies\n")
        print_rates([*rates(independents, lambda r: r["kind"]), *rates(independents, lambda _: "all")])
        print_interval(independents)
        print_rates(rates(independents, lambda r: r["case"]))
        plain = [r for r in surrogates if not r["laundering"] and not r["output"] and r["kind"] != "rotation-invariant"]
        gated = [r for r in plain if useful(r, independents)]
        print(f"\n### {data}: surrogates found\n")
        print(f"{len(gated)} of {len(plain)} beat the linear probe of an encoder made from the same queries alone.\n")
        for title, group in (
            ("more useful than an independent", gated),
            ("the rest", [r for r in plain if r not in gated]),
        ):
            print(f"\n{title}:\n")
            print_rates(rates(group, lambda r: r["loss"]))
            print_rates(rates(group, lambda r: r["kind"]))
            print_rates(rates(group, lambda r: f"{r['images']:,} queries"))
            print_rates(rates(group, lambda r: r["case"]))
            print_rates(rates([r for r in group if r["images"] >= 2000], lambda _: "2,000 queries and more"))
        looked = [r["decided_after"] for r in plain if r["loss"] == "infonce" and r["images"] == 10_000]
        if looked and None not in looked:
            print(f"\nqueries until SUPPORTED, InfoNCE, 10,000 queries: median {median(looked)}, of {looked}\n")
        print(f"\n### {data}: laundered answers\n")
        print_rates(rates([r for r in surrogates if r["output"]], lambda r: r["output"]))
        print(f"\n### {data}: laundered models, all and those within two points of the victim's linear probe\n")
        models = [r for r in surrogates if r["laundering"]]
        print_rates(rates(models, lambda r: r["laundering"]))
        print_rates(rates([r for r in models if close(r)], lambda r: r["laundering"]))
        print(f"\n### {data}: thieves who enforce rotation invariance\n")
        evaders = [r for r in surrogates if r["kind"] == "rotation-invariant"]
        print_rates(rates(evaders, lambda r: f"{r['method']}, {r['loss']}, {r['epochs']} passes"))
        print_rates(rates([r for r in evaders if close(r)], lambda _: "within two points of the victim"))
        print(f"\n### {data}: verdicts not SUPPORTED among surrogates\n")
        for r in surrogates:
            if r["verdict"] != "SUPPORTED":
                print(describe(r))
        print(f"\n### {data}: independents called copies\n")
        for r in independents:
            if r["verdict"] == "SUPPORTED":
                print(describe(r))


def describe(r: Row) -> str:
    """One audit in a line."""
    what = r["loss"] if r["role"] == "surrogate" else r["objective"]
    p = {n: r.get(f"{n}.pvalue") for n in ("partial_rsa", "watermark_success", "partial_rsa_turned")}
    shown = ", ".join(f"{n} {v:.3f}" for n, v in p.items() if v is not None)
    parts = [r["case"], r["kind"], what, r["arch"], f"{r['images']}", r["laundering"], r["output"], f"seed {r['seed']}"]
    return f"- {', '.join(x for x in parts if x)}: {r['verdict']}; probe {r.get('utility', 0):.3f}; {shown}"


def print_rates(found: Iterable[Rate]) -> None:
    """Prints rates as a table."""
    print("| | SUPPORTED | of | 95 % |\n|---|---|---|---|")
    for r in found:
        print(f"| {r.name} | {r.found} | {r.n} | {r.interval[0]:.3f} to {r.interval[1]:.3f} |")
    print()


def print_interval(rows: Sequence[Row]) -> None:
    """Prints the rate with the interval that draws whole claims."""
    if rows:
        low, high = bootstrap_over(rows, "case")
        print(f"interval by bootstrap over claims: {low:.4f} to {high:.4f}\n")


def useful(row: Row, independents: Sequence[Row]) -> bool:
    """Whether a surrogate beats the linear probe of an independent made from as many of the thief's own images.

    A thief whose loss needs labels could have trained with them: the comparison is then the supervised independent.
    """
    objective = "supervised" if row["loss"] == "supcon" else "simclr"
    same = [r for r in independents if r["kind"] == "the thief's queries" and r["objective"] == objective]
    at = [r["utility"] for r in same if r["images"] == row["images"]]
    return bool(at) and row["utility"] > max(at)


def close(row: Row) -> bool:
    """Whether a model's linear probe is within two points of its victim's."""
    return bool(row["utility"] >= row["victim_utility"] - 0.02)
