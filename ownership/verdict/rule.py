"""The rule turnmark-1: from findings to a verdict and its reasons, as codes (docs/statistics.md)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ownership.evidence.querying import Problem
from ownership.plan import MIN_RELATIVE_SIMILARITY, REQUIRED_STRATA, STRATA
from ownership.stats import holm
from ownership.verdict.findings import Findings, relative_similarity_of
from ownership.verdict.indiscriminate import too_many_positives
from ownership.verdict.results import POOL_ALPHA, InterimAnalysis, KeyTest, TestResult

MIN_PROBES_PER_DIMENSION = 4
"""Probes for each dimension of a suspect below which the key test concludes nothing from not rejecting."""


class Verdict(StrEnum):
    """What the rule concludes. NOT_SUPPORTED means that no evidence was found, not that the suspect is independent."""

    SUPPORTED = "SUPPORTED"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    INCONCLUSIVE = "INCONCLUSIVE"


class ReasonCode(StrEnum):
    """Why a verdict is what it is; the comment names the data of each."""

    UNUSABLE_RESPONSES = "unusable_responses"  # problem, detail
    INDISCRIMINATE_CLAIM = "indiscriminate_claim"  # positives, n, alpha
    NOT_REPRESENTATIONS = "not_representations"  # output_kind
    NO_PRIMARY_TEST = "no_primary_test"  # test, skip, detail
    AUDITOR_PANEL = "auditor_panel"  # positives, n
    INTERIM_REJECTION = "interim_rejection"  # queries, alpha, adjusted_pvalue
    TEST = "test"  # test, rejects, alpha, adjusted_pvalue, exceeds_all_controls
    NO_FULL_SIZE_CONTROLS = "no_full_size_controls"  # relative_similarity, required
    WEAK_STRATA = "weak_strata"  # strata (of each: strong, members, median_lead)
    MISSING_STRATA = "missing_strata"  # strata
    ONE_FAMILY = "one_family"
    NO_REFERENCE_DETECTED = "no_reference_detected"  # references
    KEY_TEST = "key_test"  # rejects, alpha, adjusted_pvalue, keys_tried
    KEY_INTERIM_REJECTION = "key_interim_rejection"  # queries, alpha, adjusted_pvalue
    KEY_DIMENSIONS = "key_dimensions"  # dim, probes: the suspect is too wide for the probes
    TWINS_TEST = "twins_test"  # rejects, decides, alpha, adjusted_pvalue, twins
    POOL_TEST = "pool_test"  # rejects, alpha, pvalue
    POOL_PROBLEM = "pool_problem"  # problem, detail
    KEY_UNDETECTED = "key_undetected"  # victim: whether the key test finds it; it finds no reference surrogate


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason of a verdict."""

    code: ReasonCode
    data: Mapping[str, Any] = field(default_factory=dict)  # JSON-ready


class Evidence(StrEnum):
    """What can support a claim, each at its own error rate."""

    KEY = "key"  # the key test; exact for every independent suspect
    TWINS = "twins"  # the test of twins; exact for every independent suspect
    PANEL = "panel"  # the primary tests; for independent encoders of the panel's kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The verdict on an audit's findings."""

    verdict: Verdict
    evidence: tuple[Evidence, ...]  # what supports the claim; empty unless SUPPORTED
    reasons: tuple[Reason, ...]
    auditor_positives: tuple[str, ...]  # the auditor's own encoders for which the rule concludes SUPPORTED


def decide(findings: Findings) -> Decision:
    """Return the verdict of the rule turnmark-1, the first of these that applies.

    1. INCONCLUSIVE: the responses cannot be tested; or the rule concludes SUPPORTED for more of the auditor's own
       encoders than its error rate allows; or neither the key test nor a primary test ran. Of a suspect that is
       declared not to return representations, only the key test decides: it holds for outputs of every kind.
    2. SUPPORTED: the key test rejects at its alpha, or the test of twins at its own (`Findings.twins_reject`), or the
       primary tests support the claim (`supports`) at theirs. Each alpha is divided among the interim analyses and the
       final one; that of the twins is for the final one alone.
    3. INCONCLUSIVE: the suspect answers the probes unlike other images of their pool, or this cannot be tested.
    4. NOT_SUPPORTED: the key test ran and would have found the victim, and a reference surrogate where there are any;
       and the suspect has at least `MIN_PROBES_PER_DIMENSION` probes for each of its dimensions.
    5. INCONCLUSIVE: the claim could not have detected a surrogate. The panel has no encoders of the victim's size and
       there is no reference surrogate to measure relative similarity by; or a required stratum is missing, so that two
       families must reject, and tests of one family ran; or no test detects any reference surrogate. A required stratum
       whose members are weaker than the victim counts as missing.
    6. NOT_SUPPORTED.
    """
    tests, positives = findings.primary, _auditor_positives(findings)

    def conclude(verdict: Verdict, reasons: Sequence[Reason], evidence: tuple[Evidence, ...] = ()) -> Decision:
        return Decision(verdict=verdict, evidence=evidence, reasons=tuple(reasons), auditor_positives=positives)

    if blocked := _untestable(findings, positives):
        return conclude(Verdict.INCONCLUSIVE, blocked)
    reasons = _observations(findings, positives)
    if evidence := supporting(findings):
        return conclude(Verdict.SUPPORTED, reasons, evidence)
    if findings.pool_problem is not None or (findings.pool_test is not None and findings.pool_test.rejects):
        return conclude(Verdict.INCONCLUSIVE, reasons)
    if wide := _too_wide(findings):
        reasons = [*reasons, Reason(code=ReasonCode.KEY_DIMENSIONS, data=wide)]
    elif key_detects(findings):
        return conclude(Verdict.NOT_SUPPORTED, reasons)
    elif findings.has_key:
        reasons = [*reasons, Reason(code=ReasonCode.KEY_UNDETECTED, data={"victim": finds_victim(findings)})]
    if not tests:
        return conclude(Verdict.INCONCLUSIVE, reasons)
    if not has_full_size_controls(tests, findings.weak_strata):
        if all(relative_similarity_of(t) is None for t in tests):
            return conclude(Verdict.INCONCLUSIVE, reasons)
    elif all(missing_strata(t, findings.weak_strata) for t in tests) and len({t.family for t in tests}) < 2:
        return conclude(Verdict.INCONCLUSIVE, [*reasons, Reason(code=ReasonCode.ONE_FAMILY)])
    if undetected := _undetected_references(findings):
        reason = Reason(code=ReasonCode.NO_REFERENCE_DETECTED, data={"references": undetected})
        return conclude(Verdict.INCONCLUSIVE, [*reasons, reason])
    return conclude(Verdict.NOT_SUPPORTED, reasons)


def supporting(findings: Findings) -> tuple[Evidence, ...]:
    """Return the evidence that supports the claim, each at its own alpha."""
    plan, found = findings.plan, []
    last = findings.key is not None and key_rejects(findings.key, plan.key_alpha * plan.final_share)
    if first_key_rejection(findings) is not None or (last and not findings.ended_early):
        found.append(Evidence.KEY)
    if findings.twins_reject:
        found.append(Evidence.TWINS)
    if first_rejection(findings) is not None or supports(findings.primary, plan.final_alpha, findings.weak_strata):
        found.append(Evidence.PANEL)
    return tuple(found)


def key_rejects(test: KeyTest, alpha: float) -> bool:
    """Return whether the key test rejects: its p-value, times the number of keys tried, is at most alpha."""
    return test.adjusted_pvalue <= alpha


def first_key_rejection(findings: Findings) -> InterimAnalysis | None:
    """Return the first interim analysis at which the key test rejects, or None."""
    analyses = findings.interim_analyses
    return next((x for x in analyses if x.key is not None and key_rejects(x.key, x.key_alpha)), None)


def key_detects(findings: Findings) -> bool:
    """Return whether the key test would have found a copy: the victim, and a reference surrogate if there are any."""
    if findings.key is None:
        return False
    alpha, key = findings.plan.key_alpha * findings.plan.final_share, findings.key
    known = [key.placing(n) for n in key.references.values()]
    return key_rejects(key.placing(key.victim), alpha) and (not known or any(key_rejects(x, alpha) for x in known))


def finds_victim(findings: Findings) -> bool:
    """Return whether the key test finds the victim itself."""
    key, share = _last_key(findings), findings.plan.key_alpha * findings.plan.final_share
    return key_rejects(key.placing(key.victim), share)


def _too_wide(findings: Findings) -> dict[str, Any]:
    """Return dimension and number of probes where each dimension costs the key test too much power; else nothing."""
    key, dim = findings.claim.key, findings.suspect.dim or 0
    if findings.key is None or key is None or dim * MIN_PROBES_PER_DIMENSION <= key.probes:
        return {}
    return {"dim": dim, "probes": key.probes}


def _last_key(findings: Findings) -> KeyTest:
    tests = [findings.key, *(x.key for x in reversed(findings.interim_analyses))]
    return next(test for test in tests if test is not None)


def supports(tests: Sequence[TestResult], alpha: float, weak: Collection[str]) -> bool:
    """Return whether primary tests support the claim at a level.

    One test that has every required stratum rejects, or tests of two families do. Against a panel without encoders of
    the victim's size, every encoder of that size would be rejected: partial RSA has to reject, and the relative
    similarity has to be at least `MIN_RELATIVE_SIMILARITY`. Weak strata (`Findings.weak_strata`) count as missing.
    """
    rejected = rejecting(tests, alpha)
    if not has_full_size_controls(tests, weak):
        return any((relative_similarity_of(t) or 0) >= MIN_RELATIVE_SIMILARITY for t in rejected)
    return len({t.family for t in rejected}) >= 2 or any(not missing_strata(t, weak) for t in rejected)


def rejecting(tests: Sequence[TestResult], alpha: float) -> list[TestResult]:
    """Return the tests that reject: Holm-adjusted p at most alpha, and the suspect exceeds all controls."""
    pvalues = holm([t.pvalue for t in tests])
    return [t for t, p in zip(tests, pvalues, strict=True) if p <= alpha and t.exceeds_all_controls]


def rejecting_tests(findings: Findings) -> frozenset[str]:
    """Return the names of the tests that reject: at the final analysis, or at the first interim one that supports."""
    interim = first_rejection(findings)
    found = rejecting(interim.results, interim.alpha) if interim is not None else []
    if not findings.ended_early:
        found += rejecting(findings.primary, findings.plan.final_alpha)
    return frozenset(t.name for t in found)


def has_full_size_controls(tests: Sequence[TestResult], weak: Collection[str]) -> bool:
    """Return whether a test was made against encoders of the victim's size: plain or watermarked ones, not weak."""
    return any(stratum in t.members and stratum not in weak for t in tests for stratum in REQUIRED_STRATA)


def missing_strata(test: TestResult, weak: Collection[str]) -> tuple[str, ...]:
    """Return the strata that a test lacks: those without enough members, and those whose members are weak."""
    return (*test.missing_strata, *(s for s in weak if s in test.members))


def first_rejection(findings: Findings) -> InterimAnalysis | None:
    """Return the first interim analysis that supports the claim, or None."""
    return next((x for x in findings.interim_analyses if supports(x.results, x.alpha, findings.weak_strata)), None)


def _auditor_positives(findings: Findings) -> tuple[str, ...]:
    verdicts = [(m.name, decide(findings.placing_auditor_encoder(m)).verdict) for m in findings.auditor_panel]
    return tuple(name for name, verdict in verdicts if verdict is Verdict.SUPPORTED)


def _untestable(findings: Findings, positives: tuple[str, ...]) -> list[Reason]:
    """Return why the tests decide nothing: step 1 of the rule. Empty if they do."""
    n, alpha, kind = len(findings.auditor_panel), findings.error_rate / findings.trials, findings.suspect.output_kind
    if findings.problems:
        return [Reason(code=ReasonCode.UNUSABLE_RESPONSES, data=_of_problem(p)) for p in findings.problems]
    if too_many_positives(len(positives), n, alpha):
        data = {"positives": list(positives), "n": n, "alpha": alpha}
        return [Reason(code=ReasonCode.INDISCRIMINATE_CLAIM, data=data)]
    if findings.has_key:
        return []
    if kind != "representations":
        return [Reason(code=ReasonCode.NOT_REPRESENTATIONS, data={"output_kind": kind})]
    if findings.primary:
        return []
    skips = [(name, findings.skipped.get(name)) for name in findings.plan.primary]
    codes = [{"test": n, "skip": s.code.value if s else None, "detail": s.detail if s else ""} for n, s in skips]
    return [Reason(code=ReasonCode.NO_PRIMARY_TEST, data=data) for data in codes]


def _of_problem(problem: Problem) -> dict[str, Any]:
    return {"problem": problem.code.value, "detail": problem.detail}


def _observations(findings: Findings, positives: tuple[str, ...]) -> list[Reason]:
    """Return what the primary tests found, whatever the verdict."""
    tests, alpha = findings.primary, findings.plan.final_alpha
    rejected, adjusted = rejecting(tests, alpha), findings.adjusted_pvalues
    found = []
    if findings.auditor_panel:
        data: dict[str, Any] = {"positives": list(positives), "n": len(findings.auditor_panel)}
        found.append(Reason(code=ReasonCode.AUDITOR_PANEL, data=data))
    found += [*_key_observations(findings), *_twins_observations(findings)]
    if (pool := findings.pool_test) is not None:
        data = {"rejects": pool.rejects, "alpha": POOL_ALPHA, "pvalue": pool.pvalue}
        found.append(Reason(code=ReasonCode.POOL_TEST, data=data))
    if (problem := findings.pool_problem) is not None:
        found.append(Reason(code=ReasonCode.POOL_PROBLEM, data=_of_problem(problem)))
    if (early := first_rejection(findings)) is not None:
        smallest = min(holm([t.pvalue for t in early.results]))
        data = {"queries": early.queries, "alpha": early.alpha, "adjusted_pvalue": smallest}
        found.append(Reason(code=ReasonCode.INTERIM_REJECTION, data=data))
    for t in tests:
        data = {"test": t.name, "rejects": t in rejected, "alpha": alpha, "adjusted_pvalue": adjusted[t.name]}
        found.append(Reason(code=ReasonCode.TEST, data=data | {"exceeds_all_controls": t.exceeds_all_controls}))
    missing = sorted({s for t in tests for s in missing_strata(t, findings.weak_strata)}, key=STRATA.index)
    if not tests:
        return found
    if (strength := findings.panel_strength) is not None and strength.weak_strata:
        found.append(Reason(code=ReasonCode.WEAK_STRATA, data={"strata": strength.counts(strength.weak_strata)}))
    if not has_full_size_controls(tests, findings.weak_strata):
        data = {"relative_similarity": findings.relative_similarity, "required": MIN_RELATIVE_SIMILARITY}
        found.append(Reason(code=ReasonCode.NO_FULL_SIZE_CONTROLS, data=data))
    elif missing and all(missing_strata(t, findings.weak_strata) for t in tests):
        found.append(Reason(code=ReasonCode.MISSING_STRATA, data={"strata": missing}))
    return found


def _key_observations(findings: Findings) -> Iterator[Reason]:
    """Yield what the key test found."""
    if (early := first_key_rejection(findings)) is not None and early.key is not None:
        data = {"queries": early.queries, "alpha": early.key_alpha, "adjusted_pvalue": early.key.adjusted_pvalue}
        yield Reason(code=ReasonCode.KEY_INTERIM_REJECTION, data=data)
    if findings.key is not None and not findings.ended_early:
        alpha = findings.plan.key_alpha * findings.plan.final_share
        data = {"rejects": key_rejects(findings.key, alpha), "alpha": alpha}
        data |= {"adjusted_pvalue": findings.key.adjusted_pvalue, "keys_tried": findings.key.keys_tried}
        yield Reason(code=ReasonCode.KEY_TEST, data=data)


def _twins_observations(findings: Findings) -> Iterator[Reason]:
    """Yield what the test of twins found."""
    if (twins := findings.twins) is not None:
        data: dict[str, Any] = {
            "rejects": findings.twins_reject,
            "decides": findings.twins_decide,
            "twins": len(twins.scores),
        }
        data |= {"alpha": findings.plan.twins_alpha, "adjusted_pvalue": twins.adjusted_pvalue}
        yield Reason(code=ReasonCode.TWINS_TEST, data=data)


def _undetected_references(findings: Findings) -> list[str]:
    """Return the names of the reference surrogates, if no test detects any of them; empty if one is detected."""
    tests = [t for t in findings.primary if t.references]
    level = findings.plan.final_alpha / max(1, len(findings.primary))
    if any(t.reaches(v, level) for t in tests for v in t.references.values()):
        return []
    return sorted({name for t in tests for name in t.references})
