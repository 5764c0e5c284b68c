"""The audit: check the claim, query the suspect, score it, test it against the panel, report.

claim + suspect -> responses -> key test: rank of the key among keys drawn anew         -> findings -> decision
                             -> twins: rank of the deployed encoder among its twins     ->
                             -> scores -> one t-test per stratum, the largest p -> Holm ->
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ownership.auditing.auditor_encoders import score_auditor_encoder
from ownership.auditing.claim_checks import check_models
from ownership.auditing.measuring import evaluate, measured_claim, query_suspect
from ownership.auditing.pool_check import PoolCheck
from ownership.auditing.records import options_record
from ownership.claims.claim import Claim
from ownership.evidence.responses import Responses
from ownership.io.progress import Progress, silent
from ownership.io.text import printable
from ownership.reports.report import Report, versions
from ownership.suspects.preprocessing import parse_preprocess
from ownership.suspects.suspect import Suspect
from ownership.verdict.findings import Findings
from ownership.verdict.multiplicity import suspect_pvalue
from ownership.verdict.records import AuditOptions
from ownership.verdict.rule import Verdict, decide

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
    seed = secrets.randbits(48) if options.pool_seed is None else options.pool_seed  # no operator can foretell it
    check = None if pool is None else PoolCheck(claim, pool, seed)
    tried = suspect.variants([p for name in options.preprocessings for p in parse_preprocess(name)])
    steps = _Steps(progress, (models is not None) + len(tried) + 2 * (check is not None) + len(auditor_panel))
    models_checked = None
    if models is not None:
        steps.begin("computing the claim's representations again")
        models_checked = check_models(claim, models)
    if check is not None:
        steps.begin("asking for other images of the pool, before any probe")
        check.ask_before(tried)
    findings, responses, asked = audit_variants(claim, tried, options, steps)
    if check is not None:
        steps.begin("asking for other images of the pool, among probes")
        findings = check.ask_after(findings, asked, responses)
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


def audit_variants(
    claim: Claim, tried: Sequence[Suspect], options: AuditOptions, steps: _Steps
) -> tuple[Findings, Responses, Suspect]:
    """Return the findings with the variant that gives the strongest evidence, its responses, and the variant.

    A variant is an entry of the suspect's checkpoint with a preprocessing. Each is tested at its share of alpha. Only
    the suspect is queried several times: the panel's encoders always have their own preprocessing.
    """
    checks, tested, trials = measured_claim(claim), _at_share_of_alpha(claim, tried), []
    entries = tuple(dict.fromkeys(s.entry for s in tried))
    preprocessings = tuple(dict.fromkeys(s.preprocess.name for s in tried))
    for one in tried:
        said = [f"entry {printable(one.entry, 60)}"] if one.entry and len(entries) > 1 else []
        said += [f"preprocessing {one.preprocess.name}"] if len(preprocessings) > 1 else []
        steps.begin("querying the suspect" + (f" ({', '.join(said)})" if said else ""))
        queried = query_suspect(tested, one, checks.weak_strata, stop_early=options.stop_early)
        found = evaluate(tested, one, queried, checks, with_paper_tests=options.paper_tests)
        trials.append((found, queried.session.responses, one))
    best, responses, asked = min(trials, key=lambda x: _strongest_first(x[0]))
    if len(trials) == 1:
        return best, responses, asked
    record = replace(
        best.suspect,
        preprocessings_tried=preprocessings if len(preprocessings) > 1 else (),
        entries_tried=tuple(printable(e, 200) for e in entries) if len(entries) > 1 else (),
    )
    best = replace(best, suspect=record, queries=sum(f.queries for f, *_ in trials))
    return best, responses, asked


def share_of_alpha(alpha: float, tried: Sequence[object]) -> float:
    """Return the error rate at which each of several variants is tested (Bonferroni).

    The best of k trials is then a false positive no more often than one trial at alpha.
    """
    return alpha / len(tried)


def _at_share_of_alpha(claim: Claim, tried: Sequence[Suspect]) -> Claim:
    plan = claim.plan
    alpha, key_alpha, twins_alpha = (share_of_alpha(a, tried) for a in (plan.alpha, plan.key_alpha, plan.twins_alpha))
    return replace(claim, plan=replace(plan, alpha=alpha, key_alpha=key_alpha, twins_alpha=twins_alpha))


def _strongest_first(findings: Findings) -> tuple[bool, bool, float]:
    decision = decide(findings)
    level = suspect_pvalue(findings, decision)
    return decision.verdict is not Verdict.SUPPORTED, bool(findings.problems), 1.0 if level is None else level
