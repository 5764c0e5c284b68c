"""How strong a verdict is: its error rate, and the likelihood ratio of the verdict itself (docs/statistics.md).

The finding is the verdict, not the score behind it: a score far out in the tail of five encoders says little more than
one just beyond the threshold. LR = P(this verdict | copied) / P(this verdict | independent, of the panel's kinds).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scipy import stats

from ownership.verdict.rule import Verdict, supports

if TYPE_CHECKING:
    from ownership.reports.report import Report
    from ownership.verdict.results import TestResult

LEVEL = 0.95
"""Of the one-sided bounds."""

ENFSI = (
    (2.0, 10.0, "weak support"),
    (10.0, 100.0, "moderate support"),
    (100.0, 1e3, "moderately strong support"),
    (1e3, 1e4, "strong support"),
    (1e4, 1e6, "very strong support"),
    (1e6, None, "extremely strong support"),
)
"""From, below, in words (ENFSI, Guideline for Evaluative Reporting in Forensic Science, 2015); below 2: no support."""

NO_SUPPORT = "no support for either proposition"

LIMITS = (
    "It is not the probability that the suspect was copied. That depends on everything else that is known, too; to "
    "read one for the other is the prosecutor's fallacy.",
    "It compares with independent encoders of the panel's kinds. Of other innocents it says nothing.",
    "The reference surrogates are thefts that the owner made. Thieves who do something else may be harder to find; "
    "then the ratio is lower.",
    "The error rate rests on p-values from few encoders. One below .001 is an extrapolation of a normal tail, which is "
    "why the score itself adds nothing here, and why no ratio exceeds one divided by the error rate.",
)
"""What the ratio does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """The strength of one verdict."""

    error_rate: float  # of SUPPORTED, against an independent encoder of the panel's kinds
    references: int  # reference surrogates that were put in the suspect's place
    reached: tuple[str, ...]  # those that get SUPPORTED there
    probability: float | None  # bound of P(this verdict | copied): lower for SUPPORTED, upper for NOT_SUPPORTED
    likelihood_ratio: float | None  # at least this for SUPPORTED, at most this for NOT_SUPPORTED; None: not stated
    favours: str | None  # "copied" or "independent"
    support: str | None  # the ratio in the words of ENFSI
    statement: str  # all of it in a sentence

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON-ready values."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {**fields, "reached": list(self.reached)}


def strength_of(report: Report) -> Strength:
    """Returns the strength of a report's verdict.

    Each reference surrogate is put in the suspect's place, scored against the whole panel; k of n get SUPPORTED. With
    the exact one-sided 95 % bounds of a binomial proportion, and alpha the error rate:

    - SUPPORTED: LR is at least (lower bound of k / n) / alpha.
    - NOT_SUPPORTED: LR is at most (upper bound of (n - k) / n) / (1 - alpha).
    - INCONCLUSIVE, or n = 0: it cannot be stated.
    """
    names = sorted({n for t in report.primary for n in t.references} | set(report.claim.get("references", ())))
    reached = tuple(n for n in names if reaches(report, n))
    k, n, alpha = len(reached), len(names), report.error_rate
    probability = ratio = favours = support = None
    if report.verdict is Verdict.INCONCLUSIVE:
        statement = "No strength is stated: nothing follows from an inconclusive audit."
    elif not n:
        statement = (
            "No likelihood ratio can be stated: the claim has no reference surrogates, so nobody knows how often a "
            "theft gets this verdict."
        )
    elif report.verdict is Verdict.SUPPORTED:
        probability = lower_bound(k, n)
        ratio = probability / alpha
        favours, support = "copied", verbal(ratio)
        statement = (
            f"This verdict is at least {ratio:.3g} times as probable if the suspect was copied as the owner's "
            f"reference surrogates were as if it is an independent encoder of the panel's kinds: {support}"
            f"{'' if support == NO_SUPPORT else ' for a copy'} on the scale of ENFSI (2015)."
        )
    else:
        probability = upper_bound(n - k, n)
        ratio = probability / (1 - alpha)
        favours, support = "independent", verbal(1 / ratio)
        statement = (
            f"This verdict is at least {1 / ratio:.3g} times as probable if the suspect is an independent encoder of "
            f"the panel's kinds as if it was copied as the owner's reference surrogates were: {support}"
            f"{'' if support == NO_SUPPORT else ' for independence'} on the scale of ENFSI (2015)."
        )
    return Strength(
        error_rate=alpha,
        references=n,
        reached=reached,
        probability=probability,
        likelihood_ratio=ratio,
        favours=favours,
        support=support,
        statement=statement,
    )


def placing_reference(report: Report, name: str) -> Report:
    """Returns the report with a reference surrogate in the suspect's place; it is no reference to itself."""

    def place(test: TestResult, _suffix: str) -> TestResult | None:
        if name not in test.references:
            return None
        others = {n: v for n, v in test.references.items() if n != name}
        return replace(test, value=test.references[name], references=others)

    return report.placing(place)


def reaches(report: Report, name: str) -> bool:
    """Returns whether a reference surrogate gets SUPPORTED in the suspect's place, by the tests that ran on it.

    Where an audit ended early, only the looks that it took count.
    """
    placed = placing_reference(report, name)
    if report.ended_early:
        return any(supports(x.results, x.alpha) for x in placed.interim_analyses)
    return placed.verdict is Verdict.SUPPORTED


def lower_bound(k: int, n: int) -> float:
    """Returns the exact lower 95 % bound (Clopper and Pearson, one-sided) of a proportion of which k of n were seen.

    >>> round(lower_bound(3, 3), 4), lower_bound(0, 3)
    (0.3684, 0.0)
    """
    return float(stats.beta.ppf(1 - LEVEL, k, n - k + 1)) if k else 0.0


def upper_bound(k: int, n: int) -> float:
    """Returns the exact upper 95 % bound: one minus the lower bound of the others.

    >>> round(upper_bound(0, 3), 4), upper_bound(3, 3)
    (0.6316, 1.0)
    """
    return 1 - lower_bound(n - k, n)


def verbal(ratio: float) -> str:
    """Returns a likelihood ratio of at least 1 in words; also of a bound below 1, which supports nothing.

    >>> verbal(36.8), verbal(1.6)
    ('moderate support', 'no support for either proposition')
    """
    return next((words for least, _, words in reversed(ENFSI) if ratio >= least), NO_SUPPORT)
