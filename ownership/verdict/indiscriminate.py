"""Whether a claim is supported against too many of the auditor's own, independent encoders."""

from __future__ import annotations

from scipy import stats

INDISCRIMINATE_LEVEL = 0.05
"""Level of the exact binomial test on the auditor's own encoders: two positives of twenty at alpha 0.01."""


def too_many_positives(positives: int, n: int, alpha: float) -> bool:
    """Return whether the rule concludes SUPPORTED for more of n independent encoders than alpha allows.

    H0: an independent encoder is a false positive with probability alpha at most. H1: more often. Unit: one model.
    Exact binomial test, one-sided, at level 0.05. Assumes that the encoders are independent of the victim.

    >>> too_many_positives(1, 20, 0.01), too_many_positives(2, 20, 0.01)
    (False, True)
    """
    return n > 0 and bool(stats.binomtest(positives, n, alpha, alternative="greater").pvalue < INDISCRIMINATE_LEVEL)
