"""The verdict: the plan's rule applied to the numbers of one report."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from scipy import stats

from ownership.plan import MIN_RELATIVE_SIMILARITY, REQUIRED_STRATA, STRATA
from ownership.stats import format_p, holm

if TYPE_CHECKING:
    from ownership.reports.report import Report
    from ownership.verdict.results import TestResult

INDISCRIMINATE = 0.05
"""Size of the exact binomial test on the auditor's own independents: two hits of twenty at alpha .01."""


class Verdict(Enum):
    """What the plan's rule says of the numbers; NOT_SUPPORTED means "no evidence for", never "innocent"."""

    SUPPORTED = "SUPPORTED"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    INCONCLUSIVE = "INCONCLUSIVE"


def decide(report: Report) -> tuple[Verdict, tuple[str, ...]]:
    """Returns the verdict of rules "turnmark-1" and "turnmark-2" and its reasons (docs/statistics.md).

    They differ in the looks that a plan of the second declares: each is a chance to end early with SUPPORTED, at its
    own share of alpha; the shares sum to alpha, so that looking several times costs no more errors than looking once.

    1. Responses that cannot be tested, that are declared to be no representations, or no deciding test: INCONCLUSIVE.
       The same if the rule calls more of the auditor's own independents copies than alpha allows.
    2. A deciding test rejects if its Holm-adjusted p is at most its look's share of alpha and the suspect lies beyond
       every member. One rejection by a test that has every stratum it requires supports the claim; of tests that
       lack one, two of different families must reject. Where neither plain nor marked encoders are in the panel, only
       smaller or public ones, every innocent of the victim's size stands out: partial RSA must reject *and* the
       suspect must come MIN_RELATIVE_SIMILARITY to the owner's own copies.
    3. No rejection, and no deciding test whose threshold a reference surrogate reaches: INCONCLUSIVE, the claim
       could not have found a theft. The same where a missing stratum asks for two families and only one could run, or
       for references and there are none.
    4. Otherwise NOT_SUPPORTED.
    """
    plan, tests = report.plan, report.primary
    if report.problems:
        return Verdict.INCONCLUSIVE, report.problems
    hits, own = report.auditor_positives, len(report.auditor_panel)
    if own and too_many_positives(len(hits), own, plan.alpha):
        return Verdict.INCONCLUSIVE, (
            f"the claim is indiscriminate: it calls {len(hits)} of the auditor's {own} independent encoders copies "
            f"({', '.join(hits)}), more than alpha {plan.alpha:g} allows",
        )
    if report.output_kind != "representations":
        return Verdict.INCONCLUSIVE, (
            f"the suspect is declared to give {report.output_kind}, not representations: the panel is no null for them, "
            "so what can be computed is shown and nothing decides",
        )
    if not tests:
        return Verdict.INCONCLUSIVE, tuple(
            f"{name} could not run: {report.skipped.get(name, 'not in the claim')}" for name in plan.primary
        )
    adjusted = report.adjusted_pvalues
    rejected = rejecting(tests, plan.final_alpha)
    whole = [t for t in tests if not t.missing_strata]
    missing = sorted({s for t in tests for s in t.missing_strata}, key=STRATA.index)
    lines = []
    if own:
        named = f": {', '.join(hits)}" if hits else ""
        lines.append(f"of the auditor's own independent encoders, {len(hits)} of {own} are called copies{named}")
    early = next((x for x in report.interim_analyses if supports(x.results, x.alpha)), None)
    if early is not None:
        p = min(holm([t.pvalue for t in early.results]))
        lines.append(
            f"after {early.queries} queries already: the tests of that look reject at its share of alpha, "
            f"{early.alpha:g} (Holm-adjusted p {format_p(p)})"
        )
    for t in tests:
        said = "rejects" if t in rejected else "does not reject"
        lines.append(
            f"{t.title}: {said} at alpha {plan.final_alpha:g} (Holm-adjusted p {format_p(adjusted[t.name])}, "
            f"{'beyond' if t.exceeds_all_controls else 'not beyond'} every panel member)"
        )
    peers = has_full_size_controls(tests)
    if not peers:
        lines.append(_describe_relative_similarity(tests))
    elif missing and not whole:
        lines.append(f"no stratum {' or '.join(missing)} in the panel: deciding tests of two families must reject")
    if early is not None or supports(tests, plan.final_alpha):
        return Verdict.SUPPORTED, tuple(lines)
    if not peers and all(relative_similarity_of(t) is None for t in tests):
        return Verdict.INCONCLUSIVE, tuple(lines)
    if peers and not whole and len({t.family for t in tests}) < 2:
        lines.append("only one family of deciding tests could run, so this claim cannot support anything here")
        return Verdict.INCONCLUSIVE, tuple(lines)
    level = plan.final_alpha / len(tests)
    tried = [t for t in tests if t.references]
    if tried and not any(t.reaches(v, level) for t in tried for v in t.references.values()):
        lines.append("no reference surrogate reaches any threshold: this claim cannot tell a theft from a stranger")
        return Verdict.INCONCLUSIVE, tuple(lines)
    return Verdict.NOT_SUPPORTED, tuple(lines)


def rejecting(tests: Sequence[TestResult], alpha: float) -> list[TestResult]:
    """Returns the tests that reject: Holm-adjusted p at most alpha, and the suspect beyond every panel member."""
    pvalues = holm([t.pvalue for t in tests])
    return [t for t, p in zip(tests, pvalues, strict=True) if p <= alpha and t.exceeds_all_controls]


def supports(tests: Sequence[TestResult], alpha: float) -> bool:
    """Returns whether deciding tests support the claim: one rejects that has every stratum, or two families do.

    Against a panel without encoders of the victim's size: partial RSA rejects, and comes near enough to the references.
    """
    rejected = rejecting(tests, alpha)
    if not has_full_size_controls(tests):
        return any((relative_similarity_of(t) or 0) >= MIN_RELATIVE_SIMILARITY for t in rejected)
    return len({t.family for t in rejected}) >= 2 or any(not t.missing_strata for t in rejected)


def has_full_size_controls(tests: Sequence[TestResult]) -> bool:
    """Returns whether a panel has encoders of the victim's size: a stratum plain or marked that was tested against."""
    return any(stratum in t.members for t in tests for stratum in REQUIRED_STRATA)


def relative_similarity_of(test: TestResult) -> float | None:
    """Returns how close the suspect comes to the references, for the one test that may decide by it."""
    return test.relative_similarity if test.name == "partial_rsa" else None


def _describe_relative_similarity(tests: Sequence[TestResult]) -> str:
    said = "no encoder of the victim's size in the panel, only smaller or public ones"
    found = [c for t in tests if (c := relative_similarity_of(t)) is not None]
    if not found:
        return f"{said}, and no reference surrogates beyond it to compare with: this claim cannot support anything"
    return (
        f"{said}: an innocent one would stand out, too, so the suspect must come {MIN_RELATIVE_SIMILARITY:g} of the way from the panel "
        f"to the closest reference surrogate; by partial RSA it comes {found[0]:.2f}"
    )


def too_many_positives(hits: int, n: int, alpha: float) -> bool:
    """Returns whether so many hits among n innocents are more than alpha allows.

    H0: each independent encoder is called a copy with probability alpha at most. H1: more often. Unit: one model.
    Exact binomial, one-sided, at .05. Assumes independent encoders that have nothing to do with the victim.

    >>> too_many_positives(1, 20, 0.01), too_many_positives(2, 20, 0.01)
    (False, True)
    """
    return bool(stats.binomtest(hits, n, alpha, alternative="greater").pvalue < INDISCRIMINATE)
