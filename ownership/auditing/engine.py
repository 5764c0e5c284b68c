"""The audit: check the claim, query the suspect, score it, test it against the panel, report.

claim + suspect -> responses -> key test: rank of the key among keys drawn anew         -> findings -> decision
                             -> twins: rank of the deployed encoder among its twins     ->
                             -> scores -> one t-test per stratum, the largest p -> Holm ->
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from torch import Tensor

from ownership.auditing.auditor_encoders import score_auditor_encoder
from ownership.auditing.claim_checks import check_models, check_predictor, check_probes
from ownership.auditing.key_test import key_test
from ownership.auditing.panel_strength import panel_strength
from ownership.auditing.panel_test import panel_test
from ownership.auditing.paper_tests import paper_tests
from ownership.auditing.pool_check import PoolCheck
from ownership.auditing.records import claim_record, options_record, suspect_record
from ownership.auditing.session import SuspectSession
from ownership.auditing.twins_test import twins_test
from ownership.claims.claim import Claim
from ownership.evidence.responses import NotApplicable, Responses
from ownership.evidence.statistics import STATISTICS, score_one
from ownership.io.progress import Progress, silent
from ownership.reports.report import Report, versions
from ownership.suspects.preprocessing import Preprocess, parse_preprocess
from ownership.suspects.suspect import OUTPUT_KINDS, Suspect
from ownership.verdict.findings import Findings
from ownership.verdict.multiplicity import suspect_pvalue
from ownership.verdict.panel_strength import PanelStrength
from ownership.verdict.records import AuditOptions
from ownership.verdict.results import (
    InterimAnalysis,
    KeyTest,
    ProbeQuality,
    Skip,
    SkipCode,
    TestResult,
)
from ownership.verdict.rule import Verdict, decide, key_rejects, supports
from ownership.verdict.twins import TwinsTest

ALL_AT_DEFAULTS = AuditOptions()


def audit(
    claim: Claim,
    suspect: Suspect,
    options: AuditOptions = ALL_AT_DEFAULTS,
    *,
    auditor_panel: Sequence[tuple[Suspect, str]] = (),
    models: Sequence[Suspect] | None = None,
    pool: Tensor | None = None,
    progress: Progress = silent,
) -> Report:
    """Test whether a suspect was copied from the victim of a claim.

    Key test, H0: the suspect does not depend on the key. Unit: the key. Exact for every independent suspect.
    Each test against the panel, H0: the suspect is one more independent encoder of one of the panel's strata. H1: it is
    closer to the victim. Unit: one encoder. Assumption: scores of a stratum are normal on the test's scale.
    The plan's interim analyses and the final one share the alpha of each.
    Twins, H0: the suspect does not depend on which of them was picked. Unit: the pick. Exact; at the final analysis.

    Args:
        claim: What the owner fixed.
        suspect: The encoder, from `load_suspect`, `load_recorded` or `load_endpoint`.
        options: How to audit. The report records them, so that `reproduce` can repeat the audit.
        auditor_panel: Independent encoders that the auditor brings, each with a statement of its origin. A claim that
            is supported for too many of them is indiscriminate.
        models: Files of encoders of the claim; their representations are computed again and compared with the claim's.
        pool: All images of the key's pool, `(n, c, h, w)` uint8: the suspect is asked some more of them, to see whether
            it answers the probes differently.
        progress: Called before every step, with its number and the number of steps.

    Returns:
        The report. Auditing the same files again gives the same numbers; with a pool, if `options.pool_seed` is given.

    Raises:
        SuspectError: If the suspect cannot take the probes.
        ClaimError: If the claim has no key, or these images are not its pool.
        ClaimIntegrityError: If an encoder's file does not give the representations that the claim holds of it.
    """
    seed = secrets.randbits(48) if options.pool_seed is None else options.pool_seed  # nobody can foretell it
    check = None if pool is None else PoolCheck(claim, suspect, pool, seed)
    tried = tuple(p for name in options.preprocessings for p in parse_preprocess(name)) or (suspect.preprocess,)
    steps = _Steps(progress, (models is not None) + len(tried) + 2 * (check is not None) + len(auditor_panel))
    models_checked = None
    if models is not None:
        steps.begin("computing the claim's representations again")
        models_checked = check_models(claim, models)
    if check is not None:
        steps.begin("asking for other images of the pool, before any probe")
        check.ask_before(tried)
    findings, responses = audit_with_preprocessings(claim, suspect, tried, options, steps)
    if check is not None:
        steps.begin("asking for other images of the pool, among probes")
        findings = check.ask_after(findings, tried, responses)
    tested = _at_share_of_alpha(claim, tried)
    own = []
    for encoder, provenance in auditor_panel:
        steps.begin(f"scoring {encoder.name}")
        own.append(score_auditor_encoder(tested, encoder, provenance, findings))
    steps.end()
    return Report(
        findings=replace(findings, models_checked=models_checked, auditor_panel=tuple(own)),
        options=options_record(replace(options, pool_seed=None if pool is None else seed), suspect, tried),
        versions=versions(),
    )


class _Steps:
    """Reports which step of how many begins."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def begin(self, what: str) -> None:
        self._progress(what, self._done, self._total)
        self._done += 1

    def end(self) -> None:
        self._progress("audited", self._total, self._total)


def audit_with_preprocessings(
    claim: Claim, suspect: Suspect, tried: Sequence[Preprocess], options: AuditOptions, steps: _Steps
) -> tuple[Findings, Responses]:
    """Return the findings with the preprocessing that gives the strongest evidence, and the suspect's responses.

    Each preprocessing is tested at its share of alpha.

    Only the suspect is queried several times: the panel's encoders always have their own preprocessing.
    """
    checks, tested, trials = measured_claim(claim), _at_share_of_alpha(claim, tried), []
    for preprocess in tried:
        said = f" (preprocessing {preprocess.name})" if len(tried) > 1 else ""
        steps.begin(f"querying the suspect{said}")
        one = replace(suspect, preprocess=preprocess)
        queried = query_suspect(tested, one, checks.weak_strata, stop_early=options.stop_early)
        found = evaluate(tested, one, queried, checks, with_paper_tests=options.paper_tests)
        trials.append((found, queried.session.responses))
    best, responses = min(trials, key=lambda x: _strongest_first(x[0]))
    if len(trials) == 1:
        return best, responses
    best = replace(
        best,
        suspect=replace(best.suspect, preprocessings_tried=tuple(p.name for p in tried)),
        queries=sum(f.queries for f, _ in trials),
    )
    return best, responses


def share_of_alpha(alpha: float, tried: Sequence[Preprocess]) -> float:
    """Return the error rate at which each of several preprocessings is tested (Bonferroni).

    The best of k trials is then a false positive no more often than one trial at alpha.
    """
    return alpha / len(tried)


def _at_share_of_alpha(claim: Claim, tried: Sequence[Preprocess]) -> Claim:
    plan = claim.plan
    alpha, key_alpha, twins_alpha = (share_of_alpha(a, tried) for a in (plan.alpha, plan.key_alpha, plan.twins_alpha))
    return replace(claim, plan=replace(plan, alpha=alpha, key_alpha=key_alpha, twins_alpha=twins_alpha))


def _strongest_first(findings: Findings) -> tuple[bool, bool, float]:
    decision = decide(findings)
    level = suspect_pvalue(findings, decision)
    return decision.verdict is not Verdict.SUPPORTED, bool(findings.problems), 1.0 if level is None else level


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimChecks:
    """What is measured on the claim before a suspect is queried."""

    quality: ProbeQuality
    strength: PanelStrength | None

    @property
    def weak_strata(self) -> tuple[str, ...]:
        """The strata that do not count as controls."""
        return () if self.strength is None else self.strength.weak_strata


def measured_claim(claim: Claim) -> ClaimChecks:
    """Return what is wrong with a claim's probes, and the strength of its panel."""
    return ClaimChecks(quality=check_probes(claim), strength=panel_strength(claim))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueriedSuspect:
    """A suspect's session, and the interim analyses that were made during it."""

    session: SuspectSession
    interim_analyses: tuple[InterimAnalysis, ...]
    ended_early: bool  # the last of them supports the claim, and no more queries were made


def query_suspect(claim: Claim, suspect: Suspect, weak: Collection[str], *, stop_early: bool) -> QueriedSuspect:
    """Query a suspect with a claim's probes: all at once, or until an interim analysis supports the claim.

    Args:
        claim: The claim.
        suspect: The suspect.
        weak: Strata that do not count as controls.
        stop_early: Whether to end at the first analysis that supports the claim.
    """
    session = SuspectSession(suspect.preprocess.before(suspect.encoder), claim, "suspect")
    if not stop_early:
        session.query_all()
    interim: tuple[InterimAnalysis, ...] = ()
    if suspect.output_kind == "representations" or claim.material is not None:
        interim = tuple(_interim_analyses(claim, session, suspect.output_kind, weak, stop_early=stop_early))
    ended_early = stop_early and bool(interim) and _supports(interim[-1], weak)
    if stop_early and not ended_early and not session.problems:
        session.query_all()
    return QueriedSuspect(session=session, interim_analyses=interim, ended_early=ended_early)


def _supports(interim: InterimAnalysis, weak: Collection[str]) -> bool:
    by_key = interim.key is not None and key_rejects(interim.key, interim.key_alpha)
    return by_key or supports(interim.results, interim.alpha, weak)


def _interim_analyses(
    claim: Claim, session: SuspectSession, output_kind: str, weak: Collection[str], *, stop_early: bool
) -> Iterator[InterimAnalysis]:
    """Yield the interim analyses. When stopping early, query for each, and end with the first that supports."""
    primary = claim.plan.primary if output_kind == "representations" else ()
    for queries in sorted(claim.plan.interim_queries):
        sizes = claim.sizes(queries)
        if stop_early:
            session.query(sizes)
        if session.problems:
            return
        responses, context, results = session.responses.first(sizes), claim.context.first(sizes), []
        for name, value in score_one(responses, context, primary)[0].items():
            with suppress(NotApplicable):
                results.append(panel_test(name, value, responses, claim, context, interim=queries))
        share = claim.plan.share(queries)
        interim = InterimAnalysis(
            queries=queries,
            alpha=claim.plan.alpha * share,
            key_alpha=claim.plan.key_alpha * share,
            results=tuple(results),
            key=key_test(claim, session.responses, sizes["public"]),
        )
        yield interim
        if stop_early and _supports(interim, weak):
            return


def evaluate(
    claim: Claim, suspect: Suspect, queried: QueriedSuspect, checks: ClaimChecks, *, with_paper_tests: bool
) -> Findings:
    """Return the findings on a suspect that was queried."""
    session, interim = queried.session, queried.interim_analyses
    results: tuple[TestResult, ...] = ()
    key: KeyTest | None = None
    twins: TwinsTest | None = None
    skipped: dict[str, Skip] = {}
    names = STATISTICS if claim.members else ()  # without a panel there is nothing to compare a score with
    if queried.ended_early:
        results, key = interim[-1].results, interim[-1].key
        skipped = dict.fromkeys(names, Skip(code=SkipCode.DECIDED_EARLY))
    elif session.problems:
        interim, skipped = (), dict.fromkeys(names, Skip(code=SkipCode.UNUSABLE_RESPONSES))
    else:
        key, twins = key_test(claim, session.responses), twins_test(claim, session.responses)
        if claim.members:
            results, skipped = _final_analysis(claim, session, suspect.output_kind, checks.quality)
    computed = {r.name for r in results}
    secondary = not session.problems and not queried.ended_early and suspect.output_kind == "representations"
    checked = secondary and claim.watermark is not None
    return Findings(
        plan=claim.plan,
        claim=claim_record(claim),
        suspect=suspect_record(suspect, claim, session.dim),
        key=key,
        twins=twins,
        results=results,
        interim_analyses=interim,
        skipped={name: why for name, why in skipped.items() if name not in computed},
        problems=tuple(session.problems),
        queries=session.queries,
        probe_quality=checks.quality,
        panel_strength=checks.strength,
        predictor_check=check_predictor(claim, session.responses) if checked else None,
        paper_tests=paper_tests(claim, session.responses) if secondary and with_paper_tests else (),
    )


def _final_analysis(
    claim: Claim, session: SuspectSession, output_kind: str, quality: ProbeQuality
) -> tuple[tuple[TestResult, ...], dict[str, Skip]]:
    """Return every statistic at all probes: tested, or why not."""
    scores, not_computed = score_one(session.responses, claim.context)
    skipped = {name: Skip(code=SkipCode.NOT_APPLICABLE, detail=why) for name, why in not_computed.items()}
    computable, inference = OUTPUT_KINDS[output_kind], {n for n, s in STATISTICS.items() if s.family == "inference"}
    if computable is not None:
        skipped |= {n: Skip(code=SkipCode.OUTPUT_KIND, detail=output_kind) for n in scores if n not in computable}
    if claim.redaction.parts:
        skipped |= dict.fromkeys(inference - set(scores), Skip(code=SkipCode.REDACTED))
    if not quality.dataset_inference_valid:
        skipped |= dict.fromkeys(inference & set(scores), Skip(code=SkipCode.SEPARABLE_PROBES))
    results = []
    for name in (n for n in scores if n not in skipped):
        try:
            results.append(panel_test(name, scores[name], session.responses, claim, claim.context))
        except NotApplicable as e:
            skipped[name] = Skip(code=SkipCode.NOT_APPLICABLE, detail=str(e))
    return tuple(results), skipped
