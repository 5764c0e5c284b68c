"""The tables of docs/results.md from committed rows: what was accused, what was found, at what price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from scipy import stats

from attacks_for_eval.evaluation.rates import Rate, bootstrap_over, rates
from ownership.plan import ELIGIBLE_TESTS, PRIMARY_TESTS, PRIMARY_TESTS_SMALL_OR_PUBLIC, Plan

Row = dict[str, Any]


def print_tables(rows: Sequence[Row]) -> None:
    """Prints everything that the rows say, as Markdown."""
    groups = [(r["data"], panel_of(r), "distilled" in r.get("strata", [])) for r in rows]
    for group in sorted(set(groups)):
        data, panel, students = group
        mine = [r for r, of in zip(rows, groups, strict=True) if of == group]
        _print_panel(f"{data}, {panel} panel{', students in it (ADR 25)' if students else ''}", mine)


def panel_of(row: Row) -> str:
    """Returns what kind of panel the claim had."""
    return str(row["case"]).partition(", ")[2] or "whole"


def victim_of(row: Row) -> int:
    """Returns whose claim it was."""
    return int(str(row["case"]).partition(", ")[0].removeprefix("victim_"))


def _print_panel(title: str, mine: Sequence[Row]) -> None:
    independents = [r for r in mine if r["role"] == "independent"]
    surrogates = [r for r in mine if r["role"] == "surrogate"]
    print(f"\n### {title}: independents called copies\n")
    print_rates([*rates(independents, lambda r: r["kind"]), *rates(independents, lambda _: "all")])
    print_interval(independents)
    print_rates(rates(independents, lambda r: r["case"]))
    _print_relative_similarity(independents)
    plain = [r for r in surrogates if is_plain(r)]
    gated = [r for r in plain if useful(r, independents)]
    print(f"\n### {title}: surrogates found\n")
    print(f"{len(gated)} of {len(plain)} beat the linear probe of an encoder made from the same queries alone.\n")
    for part, group in (
        ("more useful than an independent", gated),
        ("the rest", [r for r in plain if r not in gated]),
    ):
        print(f"\n{part}:\n")
        print_rates(rates(group, lambda r: r["loss"]))
        print_rates(rates(group, lambda r: r["kind"]))
        print_rates(rates(group, lambda r: f"{r['images']:,} queries"))
        print_rates(rates(group, lambda r: r["case"]))
        many = [r for r in group if r["images"] >= 2000]
        print("of these, 2,000 queries and more:\n")
        print_rates(
            [*rates(many, lambda _: "all"), *rates(many, lambda r: r["loss"]), *rates(many, lambda r: r["case"])]
        )
    print("\nthe victim's architecture and kind of images, MSE, InfoNCE, SoftNN and Barlow Twins:\n")
    usual = [r for r in plain if (r["arch"], r["source"]) == ("small", "queries") and r["loss"] in USUAL]
    print_rates([*rates(usual, lambda _: "all"), *rates(usual, lambda r: r["kind"])])
    looked = [r["decided_after"] for r in plain if r["loss"] == "infonce" and r["images"] == 10_000]
    if looked and None not in looked:
        print(f"\nqueries until SUPPORTED, InfoNCE, 10,000 queries: median {median(looked)}, of {looked}\n")
    _print_laundered(title, surrogates)
    print(f"\n### {title}: verdicts not SUPPORTED among surrogates\n")
    for r in surrogates:
        if r["verdict"] != "SUPPORTED":
            print(describe(r))
    print(f"\n### {title}: independents called copies\n")
    for r in independents:
        if r["verdict"] == "SUPPORTED":
            print(describe(r))


def _holm(pvalues: Sequence[float], level: float) -> bool:
    return min(pvalues) <= level / len(pvalues)


def _cauchy(pvalues: Sequence[float], level: float) -> bool:
    """Liu and Xie 2020: tolerates dependence."""
    p = np.clip(pvalues, 1e-15, 1 - 1e-9)
    return bool(stats.cauchy.sf(np.tan((0.5 - p) * np.pi).mean()) <= level)


def _harmonic(pvalues: Sequence[float], level: float) -> bool:
    """Vovk and Wang 2020: valid under any dependence, for which the mean is multiplied by e log m (by 2 for two)."""
    m = len(pvalues)
    return m / sum(1 / max(p, 1e-300) for p in pvalues) <= level / (np.e * np.log(m) if m > 2 else m)


COMBINATIONS = {"Holm": _holm, "Cauchy": _cauchy, "harmonic mean": _harmonic}


def print_combinations(rows: Sequence[Row]) -> None:
    """Prints what other combinations of the deciding tests would find at the last look's level, whole panels."""
    level = Plan().final_alpha
    print("\n### ways to combine the deciding tests, last look alone\n")
    print("| | audits | " + " | ".join(COMBINATIONS) + " |\n|---|---|" + "---|" * len(COMBINATIONS))
    for data in sorted({r["data"] for r in rows}):
        for role in ("surrogate", "independent"):
            mine = [r for r in rows if (r["data"], r["role"], panel_of(r)) == (data, role, "whole")]
            tests = [[t for t in PRIMARY_TESTS if r.get(f"{t}.pvalue") is not None] for r in mine]
            ran = [
                ([r[f"{t}.pvalue"] for t in names], any(r[f"{t}.beyond"] for t in names))
                for r, names in zip(mine, tests, strict=True)
            ]
            found = [str(sum(beyond and rejects(p, level) for p, beyond in ran)) for rejects in COMBINATIONS.values()]
            print(f"| {data}, {role}s | {len(mine)} | {' | '.join(found)} |")


USUAL = ("mse", "infonce", "softnn", "barlow")


def _print_relative_similarity(independents: Sequence[Row]) -> None:
    """How close innocents come to the references, and whom partial RSA alone rejects, for panels without their like."""
    measured = [r for r in independents if r.get("relative_similarity") is not None]
    if not measured:
        return
    alone = [r for r in measured if r["partial_rsa.pvalue"] <= LEVEL and r["partial_rsa.beyond"]]
    print(f"{len(alone)} of {len(measured)} rejected by partial RSA's t-test at {LEVEL:.4f}, by case: ", end="")
    print(dict(Counter(r["case"] for r in alone)), "\n")
    print("| relative similarity | mean | largest |\n|---|---|---|")
    for kind in dict.fromkeys(r["kind"] for r in measured):
        values = [r["relative_similarity"] for r in measured if r["kind"] == kind]
        print(f"| {kind} | {mean(values):.2f} | {max(values):.2f} |")
    print()


LEVEL = Plan().final_alpha / len(PRIMARY_TESTS_SMALL_OR_PUBLIC)


def is_plain(row: Row) -> bool:
    """Whether a surrogate is a theft that launders nothing and hides from no test."""
    hides = row["laundering"] or row["output"] or row["kind"] == "rotation-invariant"
    return row["role"] == "surrogate" and not hides


def _print_laundered(title: str, surrogates: Sequence[Row]) -> None:
    outputs = [r for r in surrogates if r["output"]]
    models = [r for r in surrogates if r["laundering"]]
    evaders = [r for r in surrogates if r["kind"] == "rotation-invariant"]
    if outputs:
        print(f"\n### {title}: laundered answers\n")
        print_rates(rates(outputs, lambda r: r["output"]))
    if models:
        print(f"\n### {title}: laundered models, all and those within two points of the victim's linear probe\n")
        print_rates(rates(models, lambda r: r["laundering"]))
        near = [r for r in models if close(r)]
        print_rates([*rates(near, lambda r: r["laundering"]), *rates(near, lambda _: "all within two points")])
        print_rates(rates(near, lambda r: r["case"]))
    if evaders:
        print(f"\n### {title}: thieves who enforce rotation invariance\n")
        print_rates(rates(evaders, lambda r: f"{r['method']}, {r['loss']}, {r['epochs']} passes"))
        print_rates(rates([r for r in evaders if close(r)], lambda _: "within two points of the victim"))
    priced = [r for r in surrogates if r["output"] in ("", "average")]
    print(f"\n### {title}: price of evasion: points of linear probe below the victim, all surrogates\n")
    found = {r.name: r for r in rates(priced, price)}
    print_rates(found[name] for name in (price_name(i) for i in range(len(PRICES) + 1)) if name in found)


PRICES = (0.0, 0.01, 0.02, 0.03, 0.05)


def price(row: Row) -> str:
    """Returns how many points of the linear probe below its victim a thief lies, as a range."""
    return price_name(sum(row["victim_utility"] - row["utility"] > x for x in PRICES))


def price_name(i: int) -> str:
    """Returns the name of the i-th range of prices."""
    if i == 0:
        return "none"
    low = f"{100 * PRICES[i - 1]:.0f}"
    return f"more than {low}" if i == len(PRICES) else f"{low} to {100 * PRICES[i]:.0f}"


GROUPS: dict[str, tuple[str, Callable[[Row], bool]]] = {
    "independent": ("o", lambda r: r["role"] == "independent"),
    "theft": ("^", lambda r: is_plain(r)),
    "theft, model laundered": ("s", lambda r: bool(r["laundering"]) or r["output"] == "average"),
    "theft, rotation-invariant": ("D", lambda r: r["kind"] == "rotation-invariant"),
}
"""Group of the price curve -> marker, who is in it."""


def draw_prices(rows: Sequence[Row], path: Path) -> None:
    """Draws the price curve: what a thief gives up of the linear probe against the evidence that is left.

    Evidence is the largest, over the deciding tests, of the suspect's distance from the stratum that decides, in that
    stratum's standard deviations; whole panels only.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    sets = sorted({r["data"] for r in rows}, reverse=True)
    figure, axes = plt.subplots(1, len(sets), figsize=(5.5 * len(sets), 4.2), squeeze=False, layout="constrained")
    for axis, data in zip(axes[0], sets, strict=True):
        mine = [r for r in rows if r["data"] == data and panel_of(r) == "whole" and r["output"] in ("", "average")]
        for name, (watermark, of) in GROUPS.items():
            for found in (True, False):
                group = [r for r in mine if of(r) and (r["verdict"] == "SUPPORTED") is found]
                grey = name == "independent"
                axis.scatter(
                    [100 * (r["victim_utility"] - r["utility"]) for r in group],
                    [evidence(r) for r in group],
                    marker=watermark,
                    s=10 if grey else 28,
                    label=name if found is not grey else None,
                    edgecolors="0.6" if grey else "black",
                    facecolors="black" if found else "none",
                    linewidths=0.8,
                )
        axis.set_yscale("symlog", linthresh=5)
        axis.set_xlabel("points of linear probe below the victim")
        axis.set_ylabel("evidence: largest distance from the panel, sd")
        axis.set_title(data)
    axes[0][0].legend(fontsize=8, title="filled: SUPPORTED", title_fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def evidence(row: Row) -> float:
    """Returns the largest effect over the deciding tests."""
    return max(float(row[key]) for key in (f"{name}.effect" for name in PRIMARY_TESTS) if row.get(key) is not None)


def describe(r: Row) -> str:
    """One audit in a line."""
    what = r["loss"] if r["role"] == "surrogate" else r["objective"]
    p = {n: r.get(f"{n}.pvalue") for n in ELIGIBLE_TESTS}
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


def useful(row: Row, independents: Sequence[Row], *, with_labels: Sequence[str] = ("supervised", "taught")) -> bool:
    """Whether a surrogate beats the linear probe of an independent made from as many of the thief's own images.

    A thief whose loss needs labels could have trained with them, as a classifier or by the same loss with an encoder
    of his own for the victim: the comparison is then the better of those in `with_labels`.
    """
    objectives = with_labels if row["loss"] == "supcon" else ("simclr",)
    same = [r for r in independents if r["kind"] == "the thief's queries" and r["objective"] in objectives]
    at = [r["utility"] for r in same if r["images"] == row["images"]]
    return bool(at) and row["utility"] > max(at)


def close(row: Row) -> bool:
    """Whether a model's linear probe is within two points of its victim's."""
    return bool(row["utility"] >= row["victim_utility"] - 0.02)
