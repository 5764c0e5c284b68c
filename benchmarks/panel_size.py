"""How many panel members a stratum needs: size and power of the composite test, by simulating models.

    python benchmarks/panel_size.py                    # the table of docs/results.md; seconds

Unit: a model with one score. The suspect is one more model of the stratum *marked* (size), or lies so many standard
deviations above it (power); it is rejected if the case-control t-test gives p <= level against every stratum and it
lies beyond every member. Populations: normal; heavy-tailed (Student's t, 3 degrees of freedom); mixed (three models of
ten lie 2 standard deviations higher: kinds that the owner did not tell apart); skewed (a gamma of shape 2).
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ownership.plan import PRIMARY_TESTS, Plan

LEVEL = Plan().final_alpha / len(
    PRIMARY_TESTS
)  # the last look's half of alpha .01, first step of Holm over three tests


def draw(rng: np.random.Generator, shape: tuple[int, ...], population: str) -> NDArray[np.float64]:
    """Scores with standard deviation 1."""
    if population == "heavy":
        return rng.standard_t(3, shape) / np.sqrt(3)
    if population == "mixed":
        return (rng.normal(size=shape) + 2 * (rng.random(shape) < 0.3)) / np.sqrt(1 + 4 * 0.21)
    if population == "skewed":
        return (rng.gamma(2, size=shape) - 2) / np.sqrt(2)
    return rng.normal(size=shape)


def called(rng: np.random.Generator, m: int, population: str, runs: int) -> float:
    """Share of innocents that the whole rule calls copies: three looks, three tests with independent scores, Holm.

    A model has one true score a test; a look sees it with noise of .6, .4 and .2 standard deviations. The third test
    runs at the last look only.
    """
    plan = Plan()
    alphas = [plan.alpha * share for share in plan.interim_alpha_shares] + [plan.final_alpha]
    true = [(draw(rng, (runs, m), population), draw(rng, (runs, m + 1), population)) for _ in plan.primary]
    hit = np.zeros(runs, dtype=bool)
    for noise, alpha in zip((0.6, 0.4, 0.2), alphas, strict=True):
        tests = []
        for plain, watermarked in true if noise == 0.2 else true[:2]:
            a, b = (x + noise * rng.normal(size=x.shape) for x in (plain, watermarked))
            tests.append(pvalue(b[:, m], [a, b[:, :m]]))
        ordered = np.sort(np.stack(tests), axis=0)  # tests that do not reach beyond every member have p = 1
        weights = np.arange(len(tests), 0, -1)[:, None]
        hit |= np.maximum.accumulate(weights * ordered, axis=0)[0] <= alpha
    return float(hit.mean())


def pvalue(case: NDArray[np.float64], strata: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Largest p over the strata; 1 if the case does not lie beyond every member."""
    out = np.zeros(len(case))
    for x in strata:
        m = x.shape[1]
        t = (case - x.mean(1)) / (x.std(1, ddof=1) * np.sqrt((m + 1) / m))
        out = np.where(case > x.max(1), np.maximum(out, stats.t.sf(t, m - 1)), 1.0)
    return out


def rejected(case: NDArray[np.float64], strata: list[NDArray[np.float64]], level: float) -> float:
    """Share of simulated cases that are rejected against every stratum."""
    return float((pvalue(case, strata) <= level).mean())


def main() -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50_000)
    parser.add_argument("--level", type=float, default=LEVEL)
    parser.add_argument("--lower", type=float, default=1.0, help="how far plain members lie below marked ones, in sd")
    arguments = parser.parse_args()
    runs, level = arguments.runs, arguments.level
    print(f"level {level:.5f}, {runs} runs; plain members {arguments.lower:g} sd below marked ones\n")
    columns = (
        "members a stratum",
        "population",
        "size",
        "size without marked members",
        "power at 5, 8, 12 sd",
        "whole rule",
    )
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for m in (5, 6, 7, 8, 10, 15):
        for population in ("normal", "heavy", "mixed", "skewed"):
            rng = np.random.default_rng(m)
            plain = draw(rng, (runs, m), population) - arguments.lower
            watermarked = draw(rng, (runs, m), population)
            case = draw(rng, (runs,), population)
            size, alone = rejected(case, [plain, watermarked], level), rejected(case, [plain], level)
            powers = ", ".join(f"{rejected(case + d, [plain, watermarked], level):.2f}" for d in (5, 8, 12))
            rule = called(rng, m, population, runs)
            print(f"| {m} | {population} | {size:.5f} | {alone:.5f} | {powers} | {rule:.4f} |")


if __name__ == "__main__":
    main()
