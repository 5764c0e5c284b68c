"""Simulate size and power of the composite test, and the error rate of the whole rule, by panel size.

    python -m benchmarks.panel_size run          # 50,000 simulated panels and suspects a line; about a minute

Unit: a model with one score. The suspect is one more model of the stratum *watermarked* (size), or lies a given number
of standard deviations above it (power). It is rejected if the case-control t-test gives p <= level against every
stratum and its score exceeds that of every member. Populations: normal; heavy-tailed (Student's t, 3 degrees of
freedom); mixed (three models of ten lie 2 standard deviations higher: kinds that the owner did not tell apart); skewed
(a gamma of shape 2).
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.common.machine import versions
from benchmarks.common.rows import Row, RowStore
from ownership.plan import PRIMARY_TESTS, Plan

ROWS = RowStore("panel_size")
LEVEL = Plan().final_alpha / len(PRIMARY_TESTS)
"""The final analysis's half of alpha 0.01, first step of Holm over three tests."""
DISTANCES = (5, 8, 12)
"""Of the suspect above the watermarked members, in standard deviations."""


def draw(rng: np.random.Generator, shape: tuple[int, ...], population: str) -> NDArray[np.float64]:
    """Return scores of a population with standard deviation 1."""
    scores: NDArray[np.float64]
    if population == "heavy":
        scores = rng.standard_t(3, shape) / np.sqrt(3)
    elif population == "mixed":
        scores = (rng.normal(size=shape) + 2 * (rng.random(shape) < 0.3)) / np.sqrt(1 + 4 * 0.21)
    elif population == "skewed":
        scores = (rng.gamma(2, size=shape) - 2) / np.sqrt(2)
    else:
        scores = rng.normal(size=shape)
    return scores


def rule_error_rate(rng: np.random.Generator, m: int, population: str, runs: int) -> float:
    """Return the share of independent models that the whole rule calls copies.

    Three analyses and three tests with independent scores, Holm. A model has one true score a test; an analysis sees
    it with noise of 0.6, 0.4 and 0.2 standard deviations. The third test runs at the final analysis only.
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
        ordered = np.sort(np.stack(tests), axis=0)  # where a member scores as high, p is 1
        weights = np.arange(len(tests), 0, -1)[:, None]
        hit |= np.maximum.accumulate(weights * ordered, axis=0)[0] <= alpha
    return float(hit.mean())


def pvalue(case: NDArray[np.float64], strata: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the largest p over the strata; 1 if the case does not exceed every member."""
    out = np.zeros(len(case))
    for x in strata:
        m = x.shape[1]
        t = (case - x.mean(1)) / (x.std(1, ddof=1) * np.sqrt((m + 1) / m))
        out = np.where(case > x.max(1), np.maximum(out, stats.t.sf(t, m - 1)), 1.0)
    return out


def rejected(case: NDArray[np.float64], strata: list[NDArray[np.float64]], level: float) -> float:
    """Return the share of simulated cases that are rejected against every stratum."""
    return float((pvalue(case, strata) <= level).mean())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--runs", type=int, default=50_000)
    parser.add_argument("--level", type=float, default=LEVEL)
    parser.add_argument("--lower", type=float, default=1.0, help="how far plain members lie below watermarked, in sd")


def run(arguments: argparse.Namespace) -> None:
    """Simulate and replace all rows."""
    runs, level, rows = arguments.runs, arguments.level, []
    for m in (5, 6, 7, 8, 10, 15):
        for population in ("normal", "heavy", "mixed", "skewed"):
            rng = np.random.default_rng(m)
            plain = draw(rng, (runs, m), population) - arguments.lower
            watermarked = draw(rng, (runs, m), population)
            case = draw(rng, (runs,), population)
            row: Row = {"members": m, "population": population, "runs": runs, "level": level, "lower": arguments.lower}
            row["size"] = rejected(case, [plain, watermarked], level)
            row["size_plain_only"] = rejected(case, [plain], level)
            row["power"] = {str(d): rejected(case + d, [plain, watermarked], level) for d in DISTANCES}
            row["rule_error_rate"] = rule_error_rate(rng, m, population, runs)
            rows.append({**row, "versions": versions()})
            print(f"{len(rows)} of 24: {row}", flush=True)
    ROWS.save(rows)
