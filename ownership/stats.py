"""The statistical tests that the verdict rests on.

The unit of observation is the model, not the image (docs/statistics.md): a test compares a suspect's score with the
scores of m independent encoders.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from ownership.errors import ClaimError

Alternative = Literal["greater", "less"]

MIN_STRATUM = 5
"""Fewest members of a stratum that is tested against (4 degrees of freedom)."""


@dataclass(frozen=True, kw_only=True)
class CaseControlResult:
    """Result of `case_control_test`."""

    statistic: float  # t
    df: int  # m - 1
    pvalue: float  # one-sided
    effect_size: float  # (case - mean) / sd
    mean: float  # of the controls
    sd: float  # of the controls (ddof = 1), at least `min_sd`
    n: int  # m

    @cached_property
    def confidence_interval(self) -> tuple[float, float]:
        """95 % confidence interval of the effect size."""
        return _effect_interval(self.effect_size, self.n)


def case_control_test(
    case: float, controls: ArrayLike, alternative: Alternative = "greater", *, min_sd: float = 0.0
) -> CaseControlResult:
    """Test whether one case is a draw from the population of the controls (Crawford and Howell's t-test).

    H0: the case comes from the normal population of the controls.
    H1: the case lies above that population ("greater") or below it ("less"); the test is one-sided.
    Unit: one model. Assumptions: controls independent and normal on the given scale (logit, Fisher z).
    Not valid if an independent suspect would be of another kind than the controls: the size is then unknown.

    Args:
        case: score of the suspect.
        controls: `(m,)` scores of the members of one stratum, m >= 2.
        alternative: "greater" or "less".
        min_sd: lower bound of the controls' standard deviation. It can only increase p.

    Raises:
        ClaimError: if there are fewer than 2 controls, a score is not finite, or all controls are equal and `min_sd`
            is 0.

    References:
        [1] Crawford and Howell, Comparing an individual's test score against norms derived from small samples,
            The Clinical Neuropsychologist 12, 1998, equation 1.
        [2] Crawford and Garthwaite, Investigation of the single case in neuropsychology, Neuropsychologia 40, 2002
            (interval of the effect size from the non-central t distribution).
    """
    x = np.asarray(controls, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise ClaimError(f"a stratum of {x.size} members cannot be tested against", f"at least {MIN_STRATUM}")
    if not (np.isfinite(x).all() and math.isfinite(case)):
        raise ClaimError("a score is not finite")
    m, mean, sd = len(x), float(x.mean()), max(float(x.std(ddof=1)), min_sd)
    if not sd > 1e-12 * max(1.0, abs(mean)):
        raise ClaimError("all members of a stratum have the same score", "the panel needs different encoders")
    t = (case - mean) / (sd * math.sqrt((m + 1) / m))
    p = stats.t.sf(t, m - 1) if alternative == "greater" else stats.t.cdf(t, m - 1)
    effect = (case - mean) / sd
    return CaseControlResult(
        statistic=t,
        df=m - 1,
        pvalue=float(p),
        effect_size=effect,
        mean=mean,
        sd=sd,
        n=m,
    )


def _effect_interval(effect: float, m: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of (case - mean) / sd: sqrt(m) times it is non-central t with df = m - 1 [Crawford and Garthwaite].

    The non-central t probability is computed as the mean of normal probabilities over the chi distribution of the
    standard deviation. This form is finite far in the tails, where SciPy's `nct.cdf` returns NaN.
    """
    observed, tail = effect * math.sqrt(m), (1 - level) / 2
    ratio = _chi_quantiles(m - 1)
    width = 10 + 4 * abs(observed)

    def noncentrality(probability: float) -> float:
        def gap(d: float) -> float:
            return float(special.ndtr(observed * ratio - d).mean()) - probability

        return float(optimize.brentq(gap, observed - width, observed + width, xtol=1e-8))

    return noncentrality(1 - tail) / math.sqrt(m), noncentrality(tail) / math.sqrt(m)


@lru_cache
def _chi_quantiles(df: int) -> NDArray[np.float64]:
    """Quantiles of the sample SD over the population SD, at the midpoints of 4,000 equal probabilities."""
    quantiles = (np.arange(4000) + 0.5) / 4000
    return np.asarray(np.sqrt(stats.chi2.ppf(quantiles, df) / df))


def case_control_power(effect_size: float, m: int, alpha: float) -> float:
    """Return the power of `case_control_test`: the probability of p < alpha for a case of a given effect size.

    Under H1 the statistic is non-central t with df = m - 1 and non-centrality effect_size / sqrt(1 + 1 / m). Its tail
    is computed as in `_effect_interval`, because `scipy.stats.nct` and statsmodels' `TTestPower`, which calls it,
    return NaN for large effects.

    Args:
        effect_size: (case - mean) / sd in the population of the controls, positive towards the alternative.
        m: number of controls, at least 2.
        alpha: size of the one-sided test.

    References:
        [1] Crawford and Garthwaite, Methods of testing for a deficit in single-case studies: evaluation of
            statistical power by Monte Carlo simulation, Cognitive Neuropsychology 23, 2006.
    """
    reach = float(stats.t.isf(alpha, m - 1))
    return float(special.ndtr(effect_size / math.sqrt(1 + 1 / m) - reach * _chi_quantiles(m - 1)).mean())


def members_needed(effect_size: float, alpha: float, power: float, *, most: int = 200) -> int | None:
    """Return the fewest controls with which `case_control_test` has the given power; None if more than `most`."""
    return next((m for m in range(MIN_STRATUM, most + 1) if case_control_power(effect_size, m, alpha) >= power), None)


def critical_value(
    controls: ArrayLike, alpha: float, alternative: Alternative = "greater", *, min_sd: float = 0.0
) -> float:
    """Return the score of a case for which `case_control_test` gives p = alpha."""
    x = np.asarray(controls, dtype=np.float64)
    m = len(x)
    reach = float(stats.t.isf(alpha, m - 1)) * max(float(x.std(ddof=1)), min_sd) * math.sqrt((m + 1) / m)
    return float(x.mean()) + (reach if alternative == "greater" else -reach)


def composite_threshold(
    strata: Iterable[Sequence[float]], alpha: float, alternative: Alternative = "greater", *, min_sd: float = 0.0
) -> float:
    """Return the score beyond which a case has p < alpha against every stratum and exceeds every control."""
    sign = 1 if alternative == "greater" else -1
    return sign * max(
        max(sign * critical_value(s, alpha, alternative, min_sd=min_sd), *(sign * x for x in s)) for s in strata
    )


def rank_pvalue(case: float, controls: ArrayLike, alternative: Alternative = "greater") -> float:
    """Return the exact rank p-value: (1 + number of controls at least as extreme) / (m + 1).

    H0: case and controls are exchangeable. H1: the case is larger ("greater") or smaller ("less"). Unit: one model.
    It assumes no distribution. It is at least 1 / (m + 1), so it cannot reject with small panels. Ties increase p.

    References:
        [1] Phipson and Smyth, Permutation p-values should never be zero, 2010.
    """
    x = np.asarray(controls, dtype=np.float64)
    extreme = int((x >= case).sum() if alternative == "greater" else (x <= case).sum())
    return (1 + extreme) / (len(x) + 1)


def holm(pvalues: Sequence[float]) -> list[float]:
    """Return Holm-adjusted p-values in the given order: reject each test whose adjusted p-value is at most alpha.

    Controls the probability of any false rejection among the tests, under any dependence. The result is that of
    statsmodels' `multipletests`, which runs a garbage collection (50 ms and more beside torch) at each of the thousands
    of calls of a simulation.

    References:
        [1] Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6, 1979.
    """
    adjusted = [0.0] * len(pvalues)
    running = 0.0
    for rank, i in enumerate(sorted(range(len(pvalues)), key=lambda i: pvalues[i])):
        running = max(running, min(1.0, (len(pvalues) - rank) * pvalues[i]))
        adjusted[i] = running
    return adjusted


def binomial_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) confidence interval of a probability; each bound alone has (1 + level) / 2.

    Args:
        successes: number of successes.
        n: number of trials, at least 1.
        level: confidence level of the interval.

    References:
        [1] Clopper and Pearson, The use of confidence or fiducial limits, Biometrika 26, 1934.
    """
    from statsmodels.stats.proportion import proportion_confint  # here, since it imports pandas

    low, high = proportion_confint(successes, n, alpha=1 - level, method="beta")
    return float(low), float(high)


def fisher_z(r: float) -> float:
    """Return artanh(r), the variance-stabilised scale of a correlation; r is clipped to [-1 + 1e-6, 1 - 1e-6]."""
    return math.atanh(min(max(r, -1 + 1e-6), 1 - 1e-6))


def standardized_mean_difference(a: ArrayLike, b: ArrayLike) -> float:
    """Return Cohen's d: (mean(a) - mean(b)) / pooled standard deviation; 0 if both samples are constant."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    pooled = math.sqrt(((len(x) - 1) * x.var(ddof=1) + (len(y) - 1) * y.var(ddof=1)) / (len(x) + len(y) - 2))
    difference = float(x.mean() - y.mean())
    return difference / pooled if pooled > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLevelTest:
    """Result of `image_level_test`."""

    null_hypothesis: str
    statistic: float  # t
    pvalue: float  # one-sided
    n: int  # images


def image_level_test(a: ArrayLike, b: ArrayLike, null_hypothesis: str, alternative: Alternative) -> ImageLevelTest:
    """Test two samples of images for equal means by Welch's one-sided t-test, as the paper does.

    H0: equal means. H1: the mean of `a` is greater ("greater") or less ("less"). Unit: one image. It is reported for
    comparison only, because its assumption fails: images are no independent observations of a *model*, and with
    thousands of them any deviation is significant. In a pilot it rejected for 3 of 10 independent encoders
    (docs/statistics.md).

    References:
        [1] The paper, section 5.1, Table 5 (watermark) and section 5.4 (dataset inference).
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.var() + y.var() == 0:
        difference = float(x.mean() - y.mean()) * (1 if alternative == "greater" else -1)
        t, p = 0.0, 0.5 if difference == 0 else float(difference < 0)
    else:
        result = stats.ttest_ind(x, y, equal_var=False, alternative=alternative)
        t, p = float(result.statistic), float(result.pvalue)
    return ImageLevelTest(null_hypothesis=null_hypothesis, statistic=t, pvalue=p, n=len(x) + len(y))
