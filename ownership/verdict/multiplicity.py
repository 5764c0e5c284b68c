"""Several suspects against one claim: a p-value of each suspect, and how many suspects a panel can serve.

The error rate of an audit is that of one suspect. Of ten independent encoders, ten times as many are false positives;
Holm's correction over the p-values of all suspects keeps the rate of any false positive below alpha.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from statistics import median

from ownership.plan import Plan
from ownership.stats import holm
from ownership.verdict.findings import Findings
from ownership.verdict.results import InterimAnalysis, TestResult
from ownership.verdict.rule import Decision, Verdict, decide, supports


def suspect_pvalue(findings: Findings, decision: Decision) -> float | None:
    """Return the smallest error rate at which the plan's rule supports the claim; None if nothing was tested.

    At each analysis, the smallest Holm-adjusted p at which the rule supports the claim, divided by the analysis's share
    of alpha; the smallest of these, times the number of preprocessings tried. It is at most the claim's alpha if and
    only if the verdict is SUPPORTED.
    """
    if decision.verdict is Verdict.INCONCLUSIVE or not findings.primary:
        return None
    plan, shares = findings.plan, _shares(findings.plan)
    analyses = list(findings.interim_analyses)
    if not findings.ended_early:
        analyses.append(InterimAnalysis(queries=0, alpha=plan.final_alpha, results=findings.primary))
    smallest = min(smallest_level(x.results) / shares[x.queries] for x in analyses)
    return min(1.0, smallest * max(1, len(findings.suspect.preprocessings_tried)))


def capacity(findings: Findings, alpha: float) -> int | None:
    """Return among how many suspects half of the reference surrogates are still detected; None without references.

    Each is put in the place of the suspect; Holm's first step compares its p-value with alpha / number of suspects.
    """
    names = list(dict.fromkeys(n for r in findings.results for n in r.references))
    placed = [findings.placing_reference(name) for name in names]
    pvalues = [suspect_pvalue(x, decide(x)) for x in placed]
    if not pvalues:
        return None
    middle = median(1.0 if p is None else p for p in pvalues)
    return math.floor(alpha / max(middle, sys.float_info.min))


def smallest_level(tests: Sequence[TestResult]) -> float:
    """Return the smallest alpha at which these tests support the claim; infinite if there is none."""
    levels = sorted(holm([t.pvalue for t in tests]))
    return next((p for p in levels if supports(tests, p)), math.inf)


def _shares(plan: Plan) -> dict[int, float]:
    """Return the share of alpha of each analysis, by its queries; the final analysis is 0."""
    interim = dict(zip(plan.interim_queries, plan.interim_alpha_shares, strict=True))
    return {**interim, 0: 1 - sum(plan.interim_alpha_shares)}
