"""The strength of a verdict: its error rate, and the likelihood ratio of the verdict itself (docs/statistics.md).

The ratio is of the verdict, not of the scores behind it: a score far in the tail of five encoders says little more than
one just beyond the threshold. LR = P(this verdict | copied) / P(this verdict | independent, of the panel's kinds).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from ownership.stats import binomial_interval
from ownership.verdict.findings import Findings
from ownership.verdict.rule import Decision, Evidence, Verdict, first_key_rejection, first_rejection, supporting

CONFIDENCE = 0.95
"""Confidence of the one-sided bounds."""


class Support(StrEnum):
    """Verbal scale of likelihood ratios (ENFSI, Guideline for Evaluative Reporting in Forensic Science, 2015)."""

    NONE = "none"
    WEAK = "weak"
    MODERATE = "moderate"
    MODERATELY_STRONG = "moderately_strong"
    STRONG = "strong"
    VERY_STRONG = "very_strong"
    EXTREMELY_STRONG = "extremely_strong"


SCALE: tuple[tuple[float, float | None, Support], ...] = (
    (2.0, 10.0, Support.WEAK),
    (10.0, 100.0, Support.MODERATE),
    (100.0, 1e3, Support.MODERATELY_STRONG),
    (1e3, 1e4, Support.STRONG),
    (1e4, 1e6, Support.VERY_STRONG),
    (1e6, None, Support.EXTREMELY_STRONG),
)
"""Likelihood ratio from, below, level. Below 2 there is no support."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """The strength of one verdict.

    No likelihood ratio is stated for an inconclusive audit, or without reference surrogates.
    """

    error_rate: float  # P(SUPPORTED by this evidence | independent encoder), at most
    by: Evidence | None  # exact evidence that supports the claim, key before twins: the ratio is of its verdict alone
    references: int  # number of reference surrogates
    reached: tuple[str, ...]  # those for which the rule concludes SUPPORTED
    probability: float | None  # bound of P(this verdict | copied): lower for SUPPORTED, upper for NOT_SUPPORTED
    likelihood_ratio: float | None  # at least this for SUPPORTED, at most this for NOT_SUPPORTED
    favors: Literal["copied", "independent"] | None
    support: Support | None  # level of the ratio, or of its inverse where it favors "independent"
    limited: bool  # whether `support` is below the level of the ratio: no encoders of the auditor were tested


def strength_of(findings: Findings, decision: Decision) -> Strength:
    """Return the strength of a verdict.

    Each of the n reference surrogates is put in the place of the suspect; for k of them the rule concludes SUPPORTED.
    If the key test supports the claim, those count for which the key test does, and alpha is the key test's alone;
    likewise the test of twins, if the key test does not.
    With exact one-sided 95 % bounds of a binomial proportion, and alpha the error rate:

    - SUPPORTED: LR is at least (lower bound of k / n) / alpha.
    - NOT_SUPPORTED: LR is at most (upper bound of (n - k) / n) / (1 - alpha).
    - INCONCLUSIVE, or n = 0: LR is not stated.

    Where the panel alone supports the claim, and no encoders of the auditor were tested, at most weak support is
    stated: the owner alone chose what an independent encoder is.
    """
    names = sorted({n for t in findings.primary for n in t.references} | set(findings.claim.references))
    by = next((e for e in (Evidence.KEY, Evidence.TWINS) if e in decision.evidence), None)
    reached = tuple(n for n in names if reaches(findings, n, by=by))
    k, n, alpha = len(reached), len(names), error_rate(findings, decision)
    probability = ratio = support = None
    favors: Literal["copied", "independent"] | None = None
    if n and decision.verdict is Verdict.SUPPORTED:
        probability = lower_bound(k, n)
        ratio = probability / alpha
        favors, support = "copied", support_level(ratio)
    elif n and decision.verdict is Verdict.NOT_SUPPORTED:
        probability = upper_bound(n - k, n)
        ratio = probability / (1 - alpha)
        favors, support = "independent", support_level(1 / ratio)
    by_owners_panel = decision.evidence == (Evidence.PANEL,) and not findings.auditor_panel
    limited = by_owners_panel and support not in (None, Support.NONE, Support.WEAK)
    return Strength(
        error_rate=alpha,
        by=by,
        references=n,
        reached=reached,
        probability=probability,
        likelihood_ratio=ratio,
        favors=favors,
        support=Support.WEAK if limited else support,
        limited=limited,
    )


def error_rate(findings: Findings, decision: Decision) -> float:
    """Return the error rate of a verdict: of the first evidence that supports the claim, key, twins or panel.

    Otherwise it is the sum, for the evidence that there is.
    """
    if Evidence.KEY in decision.evidence:
        return findings.key_error_rate
    if Evidence.TWINS in decision.evidence:
        return findings.twins_error_rate
    return findings.panel_error_rate if Evidence.PANEL in decision.evidence else findings.error_rate


def reaches(findings: Findings, name: str, *, by: Evidence | None) -> bool:
    """Return whether the rule concludes SUPPORTED for a reference surrogate, by the tests that were made on it.

    Args:
        findings: the findings. Where the audit ended early, only its interim analyses count.
        name: the reference surrogate.
        by: evidence that must support the claim; None for any.
    """
    placed = findings.placing_reference(name)
    if findings.ended_early:
        by_panel = by is None and first_rejection(placed) is not None
        return by_panel or first_key_rejection(placed) is not None
    evidence = supporting(placed)
    return bool(evidence) if by is None else by in evidence


def lower_bound(k: int, n: int) -> float:
    """Return the exact lower 95 % bound of a proportion, of which k of n were seen (Clopper and Pearson, one-sided).

    >>> round(lower_bound(3, 3), 4), lower_bound(0, 3)
    (0.3684, 0.0)
    """
    return binomial_interval(k, n, level=2 * CONFIDENCE - 1)[0]  # a bound alone has (1 + level) / 2


def upper_bound(k: int, n: int) -> float:
    """Return the exact upper 95 % bound: one minus the lower bound of the others.

    >>> round(upper_bound(0, 3), 4), upper_bound(3, 3)
    (0.6316, 1.0)
    """
    return 1 - lower_bound(n - k, n)


def support_level(ratio: float) -> Support:
    """Return the level of a likelihood ratio; a bound below 2 supports nothing.

    >>> support_level(36.8).value, support_level(1.6).value
    ('moderate', 'none')
    """
    return next((level for least, _, level in reversed(SCALE) if ratio >= least), Support.NONE)
