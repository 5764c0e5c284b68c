"""Every statistic of ownership.stats against SciPy, statsmodels or a naive loop; uniformity under the null."""

from __future__ import annotations

import math
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from support.sampling import examples

from ownership.errors import ClaimError
from ownership.stats import (
    Alternative,
    case_control_test,
    composite_threshold,
    critical_value,
    fisher_z,
    holm,
    image_level_test,
    rank_pvalue,
    standardized_mean_difference,
)


def test_case_control_is_scipys_two_sample_t_with_one_observation() -> None:
    """Crawford and Howell's test is the pooled two-sample t-test whose second sample is the case alone."""
    rng = np.random.default_rng(0)
    for m in (2, 5, 9):
        controls, case = rng.normal(size=m), rng.normal()
        pooled_t = (case - controls.mean()) / math.sqrt(controls.var(ddof=1) * (1 + 1 / m))
        result = case_control_test(case, controls)
        assert result.statistic == pytest.approx(pooled_t)
        assert result.pvalue == pytest.approx(stats.t.sf(pooled_t, m - 1))
        assert (result.n, result.df) == (m, m - 1)


def test_case_control_known_answer() -> None:
    # Crawford & Howell 1998 equation 1 by hand: mean 3, sd sqrt(2.5), m 5, case 6
    result = case_control_test(6.0, [1, 2, 3, 4, 5])
    assert result.statistic == pytest.approx(3 / (math.sqrt(2.5) * math.sqrt(6 / 5)))
    assert result.effect_size == pytest.approx(3 / math.sqrt(2.5))


def test_case_control_p_is_uniform_under_the_null() -> None:
    rng = np.random.default_rng(1)
    p = [case_control_test(x[0], x[1:]).pvalue for x in rng.normal(size=(600, 6))]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_largest_p_over_strata_keeps_the_size() -> None:
    """A suspect of one stratum, tested against both: rejected at 0.05 in at most about 5 % of cases."""
    rng = np.random.default_rng(2)
    rejected = 0
    for _ in range(1500):
        plain, watermarked, suspect = rng.normal(0, 1, 5), rng.normal(1.5, 1.3, 5), rng.normal(1.5, 1.3)
        rejected += max(case_control_test(suspect, g).pvalue for g in (plain, watermarked)) <= 0.05
    assert rejected / 1500 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)


def test_direction_is_tested() -> None:
    controls = [0.1, 0.2, 0.0, -0.1, 0.05]
    assert case_control_test(-9.0, controls).pvalue > 0.999
    assert case_control_test(-9.0, controls, "less").pvalue < 0.001
    rng = np.random.default_rng(3)
    a, b = rng.normal(-0.5, 1, 500), rng.normal(0, 1, 500)
    assert image_level_test(a, b, "", "greater").pvalue > 0.999


def test_effect_interval_is_the_noncentral_t_interval() -> None:
    """Against SciPy's nct where that is accurate: the interval's ends put 2.5 % on either side."""
    result = case_control_test(2.0, [-1.2, 0.3, 0.5, 1.1, -0.4, 0.2])
    observed = result.effect_size * math.sqrt(6)
    low, high = (math.sqrt(6) * end for end in result.confidence_interval)
    assert stats.nct.cdf(observed, 5, low) == pytest.approx(0.975, abs=2e-4)
    assert stats.nct.cdf(observed, 5, high) == pytest.approx(0.025, abs=2e-4)


def test_effect_interval_is_finite_far_out() -> None:
    low, high = case_control_test(1e3, [0.0, 1.0, 2.0, 3.0, 4.0]).confidence_interval
    assert math.isfinite(low)
    assert 0 < low < high


@pytest.mark.parametrize("min_sd", [0.0, 0.5])
@pytest.mark.parametrize("alternative", ["greater", "less"])
def test_critical_value_is_where_p_equals_alpha(alternative: Alternative, min_sd: float) -> None:
    controls = [0.2, 0.5, 0.1, 0.4, 0.45]
    edge = critical_value(controls, 0.005, alternative, min_sd=min_sd)
    assert case_control_test(edge, controls, alternative, min_sd=min_sd).pvalue == pytest.approx(0.005)


def test_a_narrow_stratum_counts_as_wide_as_the_least() -> None:
    controls = np.array([0.2, 0.5, 0.1, 0.4, 0.45])
    plain = case_control_test(1.0, controls)
    assert case_control_test(1.0, controls, min_sd=plain.sd / 2) == plain
    # the same controls, drawn apart to that standard deviation
    wider = case_control_test(1.0, controls.mean() + (controls - controls.mean()) * 3)
    floored = case_control_test(1.0, controls, min_sd=3 * plain.sd)
    assert (floored.pvalue, floored.effect_size, floored.sd) == pytest.approx(
        (wider.pvalue, wider.effect_size, wider.sd)
    )
    assert floored.pvalue > plain.pvalue
    assert case_control_test(1.0, [0.5] * 5, min_sd=0.1).effect_size == pytest.approx(5)
    assert composite_threshold([controls], 0.01, min_sd=1.0) == critical_value(controls, 0.01, min_sd=1.0)


def test_composite_threshold_is_the_hardest_of_all() -> None:
    strata = ([0.1, 0.2, 0.15, 0.12, 0.18], [0.1, 0.9, 0.3, 0.4, 0.2])
    edges = [critical_value(s, 0.01) for s in strata]
    assert composite_threshold(strata, 0.01) == max(edges)
    assert composite_threshold([[0.0] * 30 + [9.0]], 0.2) == 9.0  # beyond every member too
    assert composite_threshold(strata, 0.01, "less") == min(critical_value(s, 0.01, "less") for s in strata)


def test_rank_p_against_a_loop_and_exact_size() -> None:
    rng = np.random.default_rng(4)
    p = []
    for _ in range(2000):
        x = rng.standard_cauchy(6)
        count = 1
        for control in x[1:]:
            if control >= x[0]:
                count += 1
        assert rank_pvalue(x[0], x[1:]) == pytest.approx(count / 6)
        p.append(count / 6)
    counts = np.bincount((np.array(p) * 6).round().astype(int), minlength=7)[1:]
    assert stats.chisquare(counts).pvalue > 0.001
    assert rank_pvalue(1.0, [1.0, 1.0]) == 1.0  # ties count against rejection


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@examples(8)
def test_holm_is_statsmodels_holm(pvalues: list[float]) -> None:
    with patch("gc.collect"):  # which statsmodels calls each time; beside torch it takes a third of a second
        expected = multipletests(pvalues, method="holm")[1]
    assert holm(pvalues) == pytest.approx(list(expected))


def test_fisher_z_and_gap() -> None:
    assert fisher_z(0.5) == pytest.approx(np.arctanh(0.5))
    assert math.isfinite(fisher_z(1.0))
    a, b = np.array([1.0, 2, 3, 4]), np.array([0.0, 1, 1, 2, 5])
    pooled = math.sqrt((3 * a.var(ddof=1) + 4 * b.var(ddof=1)) / 7)
    assert standardized_mean_difference(a, b) == pytest.approx((a.mean() - b.mean()) / pooled)


def test_image_level_is_welch() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.1, 1, 80), rng.normal(0, 2, 60)
    expected = stats.ttest_ind(a, b, equal_var=False, alternative="greater")
    assert image_level_test(a, b, "", "greater").pvalue == pytest.approx(expected.pvalue)
    assert image_level_test(np.ones(5), np.ones(5), "", "greater").pvalue == 0.5


@pytest.mark.parametrize(
    ("case", "controls", "said"),
    [(1.0, [1.0], "1 members"), (math.nan, [1.0, 2.0], "not finite"), (1.0, [2.0, 2.0, 2.0], "same score")],
)
def test_what_cannot_be_tested_is_said(case: float, controls: list[float], said: str) -> None:
    with pytest.raises(ClaimError, match=said):
        case_control_test(case, controls)
