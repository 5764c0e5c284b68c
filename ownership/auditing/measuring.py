"""Query a suspect with a claim's probes, and measure all that its responses show: the findings."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

from ownership.auditing.claim_checks import check_predictor, check_probes
from ownership.auditing.key_test import key_test
from ownership.auditing.panel_strength import panel_strength
from ownership.auditing.panel_test import panel_test
from ownership.auditing.paper_tests import paper_tests
from ownership.auditing.records import claim_record, suspect_record
from ownership.auditing.session import SuspectSession
from ownership.auditing.twins_test import twins_test
from ownership.claims.claim import Claim
from ownership.evidence.responses import NotApplicable
from ownership.evidence.statistics import STATISTICS, score_one
from ownership.suspects.suspect import OUTPUT_KINDS, Suspect
from ownership.verdict.findings import Findings
from ownership.verdict.panel_strength import PanelStrength
from ownership.verdict.results import (
    InterimAnalysis,
    KeyTest,
    ProbeQuality,
    Skip,
    SkipCode,
    TestResult,
)
from ownership.verdict.rule import key_rejects, supports
from ownership.verdict.twins import TwinsTest


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
    session = SuspectSession(suspect.asked(), claim, "suspect")
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
