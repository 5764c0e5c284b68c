"""The statistical tests, NumPy and SciPy only; every number the verdict rests on is computed here.

The unit is the model (docs/statistics.md): a suspect's score is compared with the scores of m independent encoders.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from ownership.errors import ClaimError

Alternative = Literal["greater", "less"]

MIN_STRATUM = 5
"""Fewest members a stratum may have: df = 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseControlResult:
    """One case against m controls: a t-test and an effect size in units of the controls' standard deviation."""

    statistic: float  # t
    df: int  # m - 1
    pvalue: float  # one-sided
    effect_size: float  # (case - mean) / sd
    mean: float  # of the controls
    sd: float  # of the controls, ddof = 1, or the least that counts
    n: int  # m

    @property
    def confidence_interval(self) -> tuple[float, float]:
        """95 % interval of the effect size."""
        return _effect_interval(self.effect_size, self.n)


def case_control_test(
    case: float, controls: ArrayLike, alternative: Alternative = "greater", *, least_sd: float = 0.0
) -> CaseControlResult:
    """Tests whether one case could be another draw from the population of the controls.

    H0: the case comes from the normal population that the controls were drawn from.
    H1: it lies above it (below it for "less"); one-sided, nothing is halved.
    Unit: one model. Assumptions: controls independent and normal on the scale given (use logit or Fisher z).
    When not: with controls of another kind than the innocent suspect would be of; the test then has another size.

    Args:
        case: score of the suspect.
        controls: `(m,)` scores of the members of one stratum, m >= 2.
        alternative: "greater" or "less".
        least_sd: the standard deviation of the controls counts as at least this; p is then too large, never too small.

    Raises:
        ClaimError: if there are fewer than 2 controls, a score is not finite, or all controls are equal and `least_sd`
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
    m, mean, sd = len(x), float(x.mean()), max(float(x.std(ddof=1)), least_sd)
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


@lru_cache(maxsize=1024)
def _effect_interval(effect: float, m: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of (case - mean) / sd: sqrt(m) times it is non-central t with df = m - 1 [Crawford and Garthwaite].

    The non-central t probability is the mean over the chi distribution of the standard deviation of a normal
    probability; this form stays finite far in the tails, where SciPy's `nct.cdf` turns to nan.
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
    """Quantiles of sample over population standard deviation, at the midpoints of 4000 equal probabilities."""
    quantiles = (np.arange(4000) + 0.5) / 4000
    return np.asarray(np.sqrt(stats.chi2.ppf(quantiles, df) / df))


def case_control_power(effect_size: float, m: int, alpha: float) -> float:
    """Returns the probability that `case_control_test` gives p < alpha for a case that really is that far away.

    The statistic is then non-central t with df = m - 1 and non-centrality effect_size / sqrt(1 + 1 / m); computed as
    the mean of normal probabilities over the chi distribution, finite everywhere (see `_effect_interval`).

    Args:
        effect_size: (case - mean) / sd of the population that the controls are drawn from, towards the alternative.
        m: number of controls, at least 2.
        alpha: size of the one-sided test.

    References:
        [1] Crawford and Garthwaite, Methods of testing for a deficit in single-case studies: evaluation of
            statistical power by Monte Carlo simulation, Cognitive Neuropsychology 23, 2006.
    """
    reach = float(stats.t.isf(alpha, m - 1))
    return float(special.ndtr(effect_size / math.sqrt(1 + 1 / m) - reach * _chi_quantiles(m - 1)).mean())


def members_needed(effect_size: float, alpha: float, power: float, *, most: int = 200) -> int | None:
    """Returns the fewest controls with which such a case is found with that probability; None if `most` are too few."""
    return next((m for m in range(MIN_STRATUM, most + 1) if case_control_power(effect_size, m, alpha) >= power), None)


def critical_value(
    controls: ArrayLike, alpha: float, alternative: Alternative = "greater", *, least_sd: float = 0.0
) -> float:
    """Returns the score at which `case_control_test` against these controls gives p = alpha."""
    x = np.asarray(controls, dtype=np.float64)
    m = len(x)
    reach = float(stats.t.isf(alpha, m - 1)) * max(float(x.std(ddof=1)), least_sd) * math.sqrt((m + 1) / m)
    return float(x.mean()) + (reach if alternative == "greater" else -reach)


def composite_threshold(
    strata: Iterable[Sequence[float]], alpha: float, alternative: Alternative = "greater", *, least_sd: float = 0.0
) -> float:
    """Returns the score beyond which p < alpha against every stratum, and which lies beyond every member (rule 4)."""
    sign = 1 if alternative == "greater" else -1
    return sign * max(
        max(sign * critical_value(s, alpha, alternative, least_sd=least_sd), *(sign * x for x in s)) for s in strata
    )


def rank_pvalue(case: float, controls: ArrayLike, alternative: Alternative = "greater") -> float:
    """Returns the exact rank p-value: (1 + number of controls at least as extreme) / (m + 1).

    H0: case and controls are exchangeable. H1: the case is larger (smaller). Unit: one model. No distribution is
    assumed; never below 1 / (m + 1), so with small panels it cannot decide. Ties count against the accuser.

    References:
        [1] Phipson and Smyth, Permutation p-values should never be zero, 2010.
    """
    x = np.asarray(controls, dtype=np.float64)
    extreme = int((x >= case).sum() if alternative == "greater" else (x <= case).sum())
    return (1 + extreme) / (len(x) + 1)


def holm(pvalues: Sequence[float]) -> list[float]:
    """Returns Holm-adjusted p-values in the order given: reject those at or below alpha.

    Controls the chance of any false rejection among the tests, whatever their dependence.

    References:
        [1] Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6, 1979.
    """
    adjusted = [0.0] * len(pvalues)
    running = 0.0
    for rank, i in enumerate(sorted(range(len(pvalues)), key=lambda i: pvalues[i])):
        running = max(running, min(1.0, (len(pvalues) - rank) * pvalues[i]))
        adjusted[i] = running
    return adjusted


def fisher_z(r: float) -> float:
    """Returns artanh(r), the variance-stabilised scale of a correlation; r is kept within +-(1 - 1e-6)."""
    return math.atanh(min(max(r, -1 + 1e-6), 1 - 1e-6))


def standardized_mean_difference(a: ArrayLike, b: ArrayLike) -> float:
    """Returns (mean(a) - mean(b)) / pooled standard deviation (Cohen's d); 0 if both are constant and equal."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    pooled = math.sqrt(((len(x) - 1) * x.var(ddof=1) + (len(y) - 1) * y.var(ddof=1)) / (len(x) + len(y) - 2))
    difference = float(x.mean() - y.mean())
    return difference / pooled if pooled > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLevelTest:
    """The paper's way of testing, over images; shown for comparison, never deciding."""

    null_hypothesis: str
    statistic: float  # t
    pvalue: float  # one-sided
    n: int  # images


def image_level_test(a: ArrayLike, b: ArrayLike, null_hypothesis: str, alternative: Alternative) -> ImageLevelTest:
    """Welch's one-sided t-test of two samples of images.

    H0: equal means. H1: the mean of `a` is greater (less). Unit: one image. Assumption that fails: images are taken
    as independent evidence about a *model*; with thousands of them any tiny deviation is "significant". In our pilot
    it convicted 3 of 10 innocents (docs/statistics.md).

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


def format_p(p: float) -> str:
    """Returns a p-value for people; a normal-tail extrapolation is never printed below .001 (rule 3).

    >>> format_p(0.00002), format_p(0.0123), format_p(0.95)
    ('< .001', '.012', '.95')
    """
    if p < 0.001:
        return "< .001"
    return f"{p:.3f}"[1:] if p < 0.1 else f"{p:.2f}".removeprefix("0")
