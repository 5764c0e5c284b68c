"""Power: the formula against SciPy and simulation, what a claim says of itself, and fewer probes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ownership.claims.claim import Claim
from ownership.claims.power import claim_power, power_by_probes
from ownership.stats import case_control_power, case_control_test, members_needed


@pytest.mark.parametrize(("effect", "m"), [(0.0, 5), (2.0, 5), (4.0, 8), (6.0, 5), (3.0, 30)])
def test_the_formula_is_scipys_noncentral_t_and_what_simulation_finds(effect: float, m: int) -> None:
    """H1: the case is drawn `effect` population sds away. Unit: one model. Normal controls."""
    alpha = 0.05
    ours = case_control_power(effect, m, alpha)
    reach = stats.t.isf(alpha, m - 1)
    assert ours == pytest.approx(float(stats.nct.sf(reach, m - 1, effect / math.sqrt(1 + 1 / m))), abs=2e-3)
    rng, hits = np.random.default_rng(0), 0
    for _ in range(2000):
        hits += case_control_test(effect + rng.normal(), rng.normal(size=m)).pvalue < alpha
    low, high = stats.binomtest(hits, 2000).proportion_ci(0.999)
    assert low <= ours <= high


def test_far_away_is_always_found_and_the_null_has_the_size() -> None:
    assert case_control_power(500.0, 5, 0.005) == pytest.approx(1.0)
    assert case_control_power(0.0, 5, 0.01) == pytest.approx(0.01, rel=0.02)


def test_members_needed_is_the_first_that_is_enough() -> None:
    n = members_needed(4.0, 0.005, 0.9)
    assert n is not None
    assert case_control_power(4.0, n, 0.005) >= 0.9 > case_control_power(4.0, n - 1, 0.005)
    assert members_needed(0.5, 0.005, 0.9) is None


def test_a_claim_says_what_it_can_find(claim: Claim) -> None:
    rows = claim_power(claim)
    assert {p.statistic for p in rows} == {n for n in claim.plan.primary if claim.panel_scores.references.get(n)}
    best = next(p for p in rows if p.statistic == "partial_rsa_relative")
    z = {m.name: claim.panel_scores.members["partial_rsa_relative"][m.name] for m in claim.members}
    value = claim.panel_scores.references["partial_rsa_relative"][best.reference]
    powers = []
    for kind in ("plain", "watermarked"):
        x = np.array([z[m.name] for m in claim.stratum(kind)])
        powers.append(case_control_power((value - x.mean()) / x.std(ddof=1), len(x), claim.plan.alpha / 2))
    assert best.power == pytest.approx(min(powers))
    assert best.interval[0] <= best.power <= best.interval[1]


def test_fewer_probes_are_scored_anew(claim: Claim) -> None:
    everything = len(claim.probes["public"])
    by_count = power_by_probes(claim, [60, everything])
    for a, b in zip(by_count[everything], claim_power(claim), strict=True):
        assert (a.statistic, a.reference) == (b.statistic, b.reference)
        assert a.effect_size == pytest.approx(b.effect_size, rel=1e-6)
    few, all_of_them = (next(p for p in rows if p.statistic == "partial_rsa_relative") for rows in by_count.values())
    assert few.effect_size != pytest.approx(all_of_them.effect_size, rel=0.01)
