"""Tables of the verdict benchmark: false positives, surrogates found, the price of evasion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import mean, median

import numpy as np
from scipy import stats

from attacks_for_eval.evaluation.rates import Rate, bootstrap_over, rates
from benchmarks.common.markdown import table
from benchmarks.common.rows import Row, RowStore
from benchmarks.verdicts.groups import (
    FULL_SIZE,
    PRICE_NAMES,
    SMALL_OR_PUBLIC,
    USUAL_LOSSES,
    is_close,
    is_plain,
    is_useful,
    panel_of,
    price_of,
    victim_of,
)
from ownership.plan import PRIMARY_TESTS, PRIMARY_TESTS_SMALL_OR_PUBLIC, Plan

ROWS = RowStore("verdicts", compressed=True)
FINE_TUNED = {"fashion-mnist": (3, 4), "cifar10": (1,)}
"""Victims that are fine-tunes of a public checkpoint (`design.py`)."""
MANY = 2000
"""Queries from which the required rates hold."""


def tables() -> dict[str, str]:
    """Return the tables of every data set and kind of panel."""
    rows, out = ROWS.load(), {}
    for data, panel in sorted({(r["data"], panel_of(r)) for r in rows}):
        mine = [r for r in rows if (r["data"], panel_of(r)) == (data, panel)]
        independents = [r for r in mine if r["role"] == "independent"]
        surrogates = [r for r in mine if r["role"] == "surrogate"]
        name = data if panel == FULL_SIZE else f"{data}-{panel}"
        out[f"{name}-independents"] = _independents(independents)
        out[f"{name}-surrogates"] = _surrogates(surrogates, independents, FINE_TUNED[data])
        out[f"{name}-losses"] = _losses(surrogates, independents)
        out[f"{name}-misses"] = _listed([r for r in surrogates if r["verdict"] != "SUPPORTED" and is_plain(r)])
        if panel == SMALL_OR_PUBLIC:
            out[f"{name}-relative-similarity"] = _relative_similarity(independents)
            continue
        out[f"{name}-false-positives"] = _listed([r for r in independents if r["verdict"] == "SUPPORTED"])
        out[f"{name}-smallest"] = _smallest([r for r in independents if r["verdict"] != "SUPPORTED"])
        out[f"{name}-evasion"] = _evasion(surrogates)
        out[f"{name}-price"] = _price(surrogates)
    out["combinations"] = _combinations(rows)
    return out


def _rates(found: Iterable[Rate], heading: str = "") -> str:
    lines = [[r.name, f"{r.found} of {r.n}", f"{r.interval[0]:.3f} to {r.interval[1]:.3f}"] for r in found if r.n]
    return table((heading or " ", "SUPPORTED", "95 % interval"), lines)


def _counted(name: str, rows: Sequence[Row]) -> Rate:
    return Rate(name=name, found=sum(r["verdict"] == "SUPPORTED" for r in rows), n=len(rows))


def _independents(rows: Sequence[Row]) -> str:
    found = [*rates(rows, lambda r: r["kind"]), _counted("**all**", rows)]
    found += rates(rows, lambda r: f"against victim {victim_of(r)}")
    low, high = bootstrap_over(rows, "case")
    text = f"Interval of the rate over all, by bootstrap over claims: {low:.4f} to {high:.4f}."
    return f"{_rates(found, 'independent encoders')}\n\n{text}"


def _surrogates(rows: Sequence[Row], independents: Sequence[Row], fine_tuned: tuple[int, ...]) -> str:
    plain = [r for r in rows if is_plain(r)]
    useful = [r for r in plain if is_useful(r, independents)]
    many = [r for r in useful if r["images"] >= MANY]
    usual = [r for r in plain if (r["arch"], r["source"]) == ("small", "queries") and r["loss"] in USUAL_LOSSES]
    weights = [r for r in rows if (r["weight_transforms"] or r["output_transform"] == "average") and is_close(r)]
    invariant = [r for r in rows if r["kind"] == "rotation-invariant"]
    groups: dict[str, list[Row]] = {
        "**useful (*), 2,048 queries and more**": many,
        "of these: victim trained from random weights": [r for r in many if victim_of(r) not in fine_tuned],
        "of these: victim fine-tuned from a public checkpoint": [r for r in many if victim_of(r) in fine_tuned],
        "not useful, or fewer queries": [r for r in plain if r not in many],
        "victim's architecture and kind of images; MSE, InfoNCE, SoftNN, Barlow Twins": usual,
        **{f"{kind}, useful or not": [r for r in plain if r["kind"] == kind] for kind in KINDS},
        "**output transforms**": [r for r in rows if r["output_transform"]],
        "**weight transforms, probe within two points of the victim's**": weights,
        "**rotation-invariant, probe within two points of the victim's**": [r for r in invariant if is_close(r)],
    }
    rated = _rates((_counted(name, group) for name, group in groups.items()), "surrogates")
    asked = [r["decided_after"] for r in plain if r["loss"] == "infonce" and r["images"] == 10_000]
    reached = [queries for queries in asked if queries is not None]
    text = f"Queries to the suspect until the verdict, InfoNCE surrogates of 10,000 queries: median {median(reached):g}"
    return f"{rated}\n\n{text} ({len(reached)} of {len(asked)} found)."


KINDS = ("few queries", "other architecture", "other distribution", "augmented queries", "rotated queries")


def _losses(rows: Sequence[Row], independents: Sequence[Row]) -> str:
    plain = [r for r in rows if is_plain(r)]
    many = [r for r in plain if is_useful(r, independents) and r["images"] >= MANY]
    lines = []
    for loss in dict.fromkeys(r["loss"] for r in plain):
        groups = ([r for r in many if r["loss"] == loss], [r for r in plain if r["loss"] == loss])
        lines.append([loss, *(f"{(c := _counted(loss, g)).found} of {c.n}" for g in groups)])
    return table(("loss", "useful, 2,048 queries and more", "all"), lines)


def _evasion(rows: Sequence[Row]) -> str:
    lines = []
    for name, group in _evaders(rows).items():
        near = _counted(name, [r for r in group if is_close(r)])
        lines.append([name, f"{_counted(name, group).found} of {len(group)}", f"{near.found} of {near.n}"])
    return table(("evasion", "SUPPORTED", "probe within two points of the victim's"), lines)


def _evaders(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for r in rows:
        if r["weight_transforms"]:
            groups.setdefault(f"weights: {r['weight_transforms']}", []).append(r)
        elif r["output_transform"]:
            groups.setdefault(f"outputs: {r['output_transform']}", []).append(r)
        elif r["kind"] == "rotation-invariant":
            how = "rotated images" if r["method"] == "rotated" else "rotated SimCLR views"
            groups.setdefault(f"rotation-invariant, {how}, {r['loss']}, {r['epochs']} epochs", []).append(r)
    return dict(sorted(groups.items()))


def _price(rows: Sequence[Row]) -> str:
    priced = {r.name: r for r in rates([r for r in rows if r["output_transform"] in ("", "average")], price_of)}
    return _rates((priced[name] for name in PRICE_NAMES if name in priced), "points of linear probe below the victim")


def _relative_similarity(independents: Sequence[Row]) -> str:
    level = Plan().final_alpha / len(PRIMARY_TESTS_SMALL_OR_PUBLIC)
    alone = [r for r in independents if r["partial_rsa.pvalue"] <= level and r["partial_rsa.exceeds_all_controls"]]
    lines: list[list[object]] = []
    for kind in dict.fromkeys(r["kind"] for r in independents):
        mine = [r for r in independents if r["kind"] == kind]
        values = [r["relative_similarity"] for r in mine]
        rejected = f"{sum(r in alone for r in mine)} of {len(mine)}"
        lines.append([kind, f"{mean(values):.2f}", f"{max(values):.2f}", rejected])
    of = {v: [r for r in independents if victim_of(r) == v] for v in sorted(set(map(victim_of, independents)))}
    cases = "; ".join(f"victim {v}: {sum(r in alone for r in mine)} of {len(mine)}" for v, mine in of.items())
    head = (
        "independent encoders",
        "relative similarity: mean",
        "largest",
        f"rejected by the t-test alone at {level:g}",
    )
    return f"{table(head, lines)}\n\nRejected by the t-test alone, by claim: {cases}."


def _smallest(rows: Sequence[Row]) -> str:
    lines = []
    for name in PRIMARY_TESTS:
        tested = [r for r in rows if r.get(f"{name}.pvalue") is not None]
        least = min(tested, key=lambda r: r[f"{name}.pvalue"])
        lines.append([f"`{name}`", f"{least[f'{name}.pvalue']:.5f}", len(tested), least["kind"], victim_of(least)])
    return table(("test", "smallest p, audits not SUPPORTED", "audits", "independent encoder", "victim"), lines)


def _listed(rows: Sequence[Row]) -> str:
    """Return one audit a line, with the p-values of the primary tests and the effect of the smallest."""
    if not rows:
        return "None."
    lines = []
    for r in rows:
        names = PRIMARY_TESTS if panel_of(r) == FULL_SIZE else PRIMARY_TESTS_SMALL_OR_PUBLIC
        p = {n: r[f"{n}.pvalue"] for n in names if r.get(f"{n}.pvalue") is not None}
        least = min(p, key=lambda n: p[n])
        how = r["loss"] if r["role"] == "surrogate" or r["objective"] == "distilled" else r["objective"]
        what = [victim_of(r), r["kind"], f"{how}, {r['arch']}", f"{r['images']:,}", f"{r['utility']:.3f}"]
        lines.append([*what, f"`{least}`", f"{p[least]:.5f}", f"{r[f'{least}.effect']:.1f}"])
    head = ("victim", "kind", "loss or objective, architecture", "images", "linear probe", "smallest p: test", "p")
    return table((*head, "distance from the panel, sd"), lines)


def _holm(pvalues: Sequence[float], level: float) -> bool:
    return min(pvalues) <= level / len(pvalues)


def _cauchy(pvalues: Sequence[float], level: float) -> bool:
    """Combine by Liu and Xie 2020, which tolerates dependence."""
    p = np.clip(pvalues, 1e-15, 1 - 1e-9)
    return bool(stats.cauchy.sf(np.tan((0.5 - p) * np.pi).mean()) <= level)


def _harmonic(pvalues: Sequence[float], level: float) -> bool:
    """Combine by Vovk and Wang 2020: valid under any dependence; the mean is multiplied by e log m (by 2 for two)."""
    m = len(pvalues)
    return m / sum(1 / max(p, 1e-300) for p in pvalues) <= level / (np.e * np.log(m) if m > 2 else m)


COMBINATIONS: dict[str, Callable[[Sequence[float], float], bool]] = {
    "Holm": _holm,
    "Cauchy": _cauchy,
    "harmonic mean": _harmonic,
}


def _combinations(rows: Sequence[Row]) -> str:
    """Return what other combinations of the primary tests find at the final analysis alone, full-size panels."""
    level, lines = Plan().final_alpha, []
    for data in sorted({r["data"] for r in rows}):
        for role in ("surrogate", "independent"):
            mine = [r for r in rows if (r["data"], r["role"], panel_of(r)) == (data, role, FULL_SIZE)]
            tests = [[t for t in PRIMARY_TESTS if r.get(f"{t}.pvalue") is not None] for r in mine]
            ran = [
                ([r[f"{t}.pvalue"] for t in names], any(r[f"{t}.exceeds_all_controls"] for t in names))
                for r, names in zip(mine, tests, strict=True)
            ]
            found = [sum(exceeds and rejects(p, level) for p, exceeds in ran) for rejects in COMBINATIONS.values()]
            lines.append([f"{data}, {role}s", len(mine), *found])
    return table(("suspects", "audits", *COMBINATIONS), lines)
