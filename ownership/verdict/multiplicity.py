"""Several suspects against one claim: a p-value of each suspect, and how many suspects a panel can serve.

The error rate of an audit is that of one suspect. Of ten independent encoders, ten times as many are false positives;
Holm's correction over the p-values of all suspects keeps the rate of any false positive below alpha.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Sequence
from statistics import median

from ownership.stats import holm
from ownership.verdict.findings import Findings
from ownership.verdict.results import InterimAnalysis, TestResult
from ownership.verdict.rule import Decision, Verdict, decide, supports


def suspect_pvalue(findings: Findings, decision: Decision) -> float | None:
    """Return the smallest error rate at which the plan's rule supports the claim; None if nothing was tested.

    At each analysis, the p-value of the key test divided by its part of the error rate, and the smallest Holm-adjusted
    p at which the primary tests support the claim divided by theirs; that of the twins divided by their alpha, where
    they can reject; all times the whole error rate (a weighted Bonferroni correction). The smallest of these, times the
    number of preprocessings tried. It is at most the claim's error rate if and only if the verdict is SUPPORTED.
    """
    if decision.verdict is Verdict.INCONCLUSIVE or not (findings.primary or findings.has_key):
        return None
    plan, total = findings.plan, findings.error_rate / findings.trials
    last = InterimAnalysis(
        queries=0,
        alpha=plan.final_alpha,
        key_alpha=plan.key_alpha * plan.final_share,
        results=findings.primary,
        key=findings.key,
    )
    analyses = [*findings.interim_analyses, *([] if findings.ended_early else [last])]
    smallest = min(_smallest_part(x, findings.weak_strata) for x in analyses)
    if findings.twins is not None and findings.twins_decide:
        smallest = min(smallest, findings.twins.adjusted_pvalue / plan.twins_alpha)
    return min(1.0, smallest * total * findings.trials)


def _smallest_part(of: InterimAnalysis, weak: Collection[str]) -> float:
    """Return the smallest multiple of an analysis's error rates at which it supports the claim."""
    key = math.inf if of.key is None else of.key.adjusted_pvalue / of.key_alpha
    return min(key, smallest_level(of.results, weak) / of.alpha)


def capacity(findings: Findings, alpha: float) -> int | None:
    """Return among how many suspects half of the reference surrogates are still detected; None without references.

    Each is put in the place of the suspect; Holm's first step compares its p-value with alpha / number of suspects.
    """
    names = list(findings.claim.references) or list(dict.fromkeys(n for r in findings.results for n in r.references))
    placed = [findings.placing_reference(name) for name in names]
    pvalues = [suspect_pvalue(x, decide(x)) for x in placed]
    if not pvalues:
        return None
    middle = median(1.0 if p is None else p for p in pvalues)
    return math.floor(alpha / max(middle, sys.float_info.min))


def smallest_level(tests: Sequence[TestResult], weak: Collection[str]) -> float:
    """Return the smallest alpha at which these tests support the claim; infinite if there is none.

    Weak strata (`Findings.weak_strata`) count as missing.
    """
    levels = sorted(holm([t.pvalue for t in tests]))
    return next((p for p in levels if supports(tests, p, weak)), math.inf)
