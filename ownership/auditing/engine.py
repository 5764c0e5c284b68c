"""The audit: ask the suspect the claim's probes, score it, test it against the panel, report.

claim + suspect -> answers -> scores -> one t-test a stratum, the largest p -> Holm -> Report

The tests themselves are in `testing`, the asking in `probes`.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ownership.auditing.claim_checks import check_panel, check_predictor, check_probes
from ownership.auditing.panel_test import panel_test
from ownership.auditing.paper_tests import paper_tests
from ownership.auditing.session import SuspectSession
from ownership.claims.claim import Claim
from ownership.evidence.responses import NotApplicable, Responses
from ownership.evidence.statistics import STATISTICS, score_one
from ownership.io.progress import Progress, silent
from ownership.reports.report import Report
from ownership.suspects.preprocessing import Preprocess
from ownership.suspects.suspect import OUTPUT_KINDS, Suspect
from ownership.verdict.results import AuditorEncoder, InterimAnalysis, TestResult
from ownership.verdict.rule import Verdict, supports


def audit(
    claim: Claim,
    suspect: Suspect,
    *,
    stop_early: bool = False,
    auditor_panel: Sequence[tuple[Suspect, str]] = (),
    panel_models: Sequence[Suspect] | None = None,
    paper: bool = False,
    tried: Sequence[Preprocess] = (),
    command: str | None = None,
    progress: Progress = silent,
) -> Report:
    """Tests whether the suspect was copied from the claim's victim.

    H0 of each test: the suspect is one more independent encoder of one of the panel's strata. H1: it lies further
    towards the victim than they do. Unit: one model. Assumption: scores of a stratum are normal on the test's scale.
    The plan's looks at fewer probes and the last one share alpha.

    Args:
        claim: what the owner fixed.
        suspect: the encoder, from `load_suspect`.
        stop_early: ask look by look, and nothing more once a look supports the claim: for suspects whose answers cost
            money. What only informs, dataset inference for one, is not asked then.
        auditor_panel: independent encoders that the auditor brings, each with a statement of where it comes from: a
            claim that calls too many of them copies is indiscriminate.
        panel_models: files of panel members; their answers are computed anew and compared with the claim's.
        paper: whether to add the paper's own tests, which never decide.
        tried: preprocessings to try one after the other, each at its share of alpha; the report is of the one that
            says most. Without any, the suspect's own.
        command: how to repeat this audit, for the report.
        progress: called after every step.

    Returns:
        The report; auditing the same files again gives the same numbers.

    Raises:
        SuspectError: if the suspect cannot take the probes.
        ClaimIntegrityError: if a panel member's file does not give the answers that the claim says it gave.
    """
    if len(tried) > 1:
        several = {"stop_early": stop_early, "paper": paper, "command": command, "progress": progress}
        return _best(claim, suspect, tried, auditor_panel, panel_models, **several)
    suspect = replace(suspect, preprocess=tried[0]) if tried else suspect
    notes = check_probes(claim)
    steps = 2 + len(STATISTICS) + len(auditor_panel) + len(panel_models or ())
    checked = None if panel_models is None else check_panel(claim, panel_models)
    session = SuspectSession(suspect.preprocess.before(suspect.encoder), claim, "suspect")
    if not stop_early:
        session.query({name: len(images) for name, images in claim.probes.items()})
    interim_analyses = (
        list(_looks(claim, session, stop_early=stop_early)) if suspect.output_kind == "representations" else []
    )
    ended = stop_early and bool(interim_analyses) and supports(interim_analyses[-1].results, interim_analyses[-1].alpha)
    if stop_early and not ended and not session.problems:
        session.query({name: len(images) for name, images in claim.probes.items()})
    progress("auditing", 2, steps)
    results: list[TestResult] = []
    if ended:
        results, skipped = (
            list(interim_analyses[-1].results),
            dict.fromkeys(STATISTICS, "not asked: an early look decided"),
        )
    elif session.problems:
        skipped, interim_analyses = dict.fromkeys(STATISTICS, "the answers cannot be tested"), []
    else:
        results, skipped = _results(claim, session.responses, suspect.output_kind)
        if any("dataset inference means nothing" in note for note in notes):
            inference = [r for r in results if r.family == "inference"]
            skipped |= {r.name: "private and public images can be told apart without any encoder" for r in inference}
            results = [r for r in results if r not in inference]
    skipped = {name: why for name, why in skipped.items() if name not in {r.name for r in results}}
    progress("auditing", 2 + len(STATISTICS), steps)
    brought = []
    for i, (independent, provenance) in enumerate(auditor_panel):
        brought.append(_auditor_encoder(claim, independent, provenance, [r.name for r in results], interim_analyses))
        progress("auditing the auditor's own encoders", 3 + len(STATISTICS) + i, steps)
    testable = not session.problems and not ended and suspect.output_kind == "representations"
    return Report(
        plan=claim.plan,
        claim=_describe_claim(claim),
        suspect={
            "name": suspect.name,
            "format": suspect.format,
            "sha256": suspect.sha256,
            "bytes": suspect.size,
            "architecture": suspect.architecture,
            "files": suspect.files,
            "dim": session.responses.dim if session.responses.sets else None,
            "output_kind": suspect.output_kind,
            "resized_to": _resized(suspect, claim),
            "preprocess": suspect.preprocess.name,
            "sandbox": suspect.layers,
            **suspect.details(),
        },
        results=tuple(results),
        skipped=skipped,
        problems=tuple(session.problems),
        versions=versions(),
        command=command or f"turnmark audit {shlex.quote(suspect.name)} --claim CLAIM",
        interim_analyses=tuple(interim_analyses),
        queries=session.queries,
        panel_checked=checked,
        notes=tuple(notes),
        predictor_check=check_predictor(claim, session.responses) if testable and claim.predictor is not None else None,
        auditor_panel=tuple(brought),
        paper=paper_tests(claim, session.responses) if paper and testable else (),
    )


def _best(
    claim: Claim,
    suspect: Suspect,
    tried: Sequence[Preprocess],
    auditor_panel: Sequence[tuple[Suspect, str]],
    panel_models: Sequence[Suspect] | None,
    **arguments: Any,
) -> Report:
    """The report of the preprocessing that says most against the suspect, each tested at its share of alpha.

    Only the suspect is asked several times: panel and auditor's encoders prepare their images as they always do.
    """
    checked = None if panel_models is None else check_panel(claim, panel_models)
    strict = replace(claim, plan=replace(claim.plan, alpha=share_of_alpha(claim.plan.alpha, tried)))
    reports = [audit(strict, suspect, tried=[p], **arguments) for p in tried]

    def says(report: Report) -> tuple[bool, bool, float]:
        smallest = min(report.adjusted_pvalues.values(), default=1.0)
        return report.verdict is not Verdict.SUPPORTED, bool(report.problems), smallest

    best = min(reports, key=says)
    names = [r.name for r in best.results]
    return replace(
        best,
        suspect={**best.suspect, "preprocess_tried": [p.name for p in tried]},
        queries=sum(r.queries or 0 for r in reports),
        panel_checked=checked,
        auditor_panel=tuple(
            _auditor_encoder(strict, m, said, names, best.interim_analyses) for m, said in auditor_panel
        ),
    )


def _resized(suspect: Suspect, claim: Claim) -> list[int] | None:
    """Height and width that probes were resized to for a suspect made for images of one other size; else None."""
    size = suspect.resizes(tuple(claim.probes["public"].shape))
    return None if size is None else list(size)


def _looks(claim: Claim, session: SuspectSession, *, stop_early: bool) -> Iterator[InterimAnalysis]:
    """Yields the looks before the last; when stopping early, asks for each and ends with the first that supports."""
    shares = dict(zip(claim.plan.interim_queries, claim.plan.interim_alpha_shares, strict=True))
    for queries in sorted(claim.interim_scores):
        sizes = claim.sizes(queries)
        if stop_early:
            session.query(sizes)
        if session.problems:
            return
        responses, context, results = session.responses.first(sizes), claim.context.first(sizes), []
        for name, value in score_one(responses, context, claim.plan.primary)[0].items():
            with suppress(NotApplicable):
                results.append(panel_test(name, value, responses, claim, context, interim=queries))
        interim = InterimAnalysis(queries=queries, alpha=claim.plan.alpha * shares[queries], results=tuple(results))
        yield interim
        if stop_early and supports(interim.results, interim.alpha):
            return


def _results(claim: Claim, responses: Responses, kind: str) -> tuple[list[TestResult], dict[str, str]]:
    """Every statistic at all probes: tested, or why not."""
    context = claim.context
    scores, skipped = score_one(responses, context)
    sayable = OUTPUT_KINDS[kind]
    for name in set(scores) - set(scores if sayable is None else sayable):
        del scores[name]
        skipped[name] = f"it needs representations; the suspect is declared to give {kind}"
    if claim.redaction.parts:
        why = "the owner's private images are withheld from this view of the claim"
        skipped |= {name: why for name, s in STATISTICS.items() if s.family == "inference"}
    results = []
    for name, value in scores.items():
        try:
            results.append(panel_test(name, value, responses, claim, context))
        except NotApplicable as e:
            skipped[name] = str(e)
    return results, skipped


def _auditor_encoder(
    claim: Claim,
    independent: Suspect,
    provenance: str,
    names: Sequence[str],
    interim_analyses: Sequence[InterimAnalysis],
) -> AuditorEncoder:
    """An auditor's encoder, scored as the suspect is, by the tests that ran on the suspect."""
    session = SuspectSession(independent.preprocess.before(independent.encoder), claim, independent.name)
    session.query({name: len(images) for name, images in claim.probes.items()})
    independent.close()  # one process at a time
    values: dict[str, float] = {}
    if not session.problems:
        values = score_one(session.responses, claim.context, names)[0]
        for interim in interim_analyses:
            sizes = claim.sizes(interim.queries)
            cut = score_one(
                session.responses.first(sizes), claim.context.first(sizes), [r.name for r in interim.results]
            )[0]
            values |= {f"{name}@{interim.queries}": value for name, value in cut.items()}
    return AuditorEncoder(
        name=independent.name,
        sha256=independent.sha256,
        provenance=provenance,
        values=values,
        problems=tuple(session.problems),
    )


def _describe_claim(claim: Claim) -> dict[str, Any]:
    return {
        "sha256": claim.sha256,
        "victim": {"sha256": claim.victim.sha256, "architecture": claim.victim.architecture, "dim": claim.victim.dim},
        "panel": [
            {
                "name": m.name,
                "kind": m.kind,
                "watermark": m.watermark,
                "data": m.data,
                "trained_on_private": m.trained_on_private,
                "sha256": m.sha256,
            }
            for m in claim.members
        ],
        "references": [m.name for m in claim.references],
        "dropped": list(claim.dropped),
        "watermark": claim.predictor is not None,
        "probes": {name: len(images) for name, images in sorted(claim.probes.items())},
        "image_size": list(claim.probes["public"].shape[1:]),
        "redaction": list(claim.redaction.parts),
        "seal": None if claim.seal is None else claim.seal.to_dict(),
    }


def versions() -> dict[str, str]:
    """Returns the versions that numbers may depend on."""
    out = {"python": platform.python_version(), "platform": platform.system() + " " + platform.machine()}
    for package in ("turnmark", "torch", "numpy", "scipy", "scikit-learn", "onnxruntime-gpu", "onnxruntime"):
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            continue
    return out


def share_of_alpha(alpha: float, tried: Sequence[Preprocess]) -> float:
    """Returns the error rate that each of several tried preprocessings is tested at: Bonferroni, whatever the panel.

    The most likely of k tries is then wrong no more often than one try at alpha, without asking the panel k times.
    """
    return alpha / len(tried)
