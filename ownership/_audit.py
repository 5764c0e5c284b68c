"""The audit: ask the suspect the claim's probes, score it, test it against the panel, report.

claim + suspect -> answers -> scores -> one t-test a stratum, the largest p -> Holm -> Report
"""

from __future__ import annotations

import math
import platform
import shlex
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ownership.answers import Answers, Context, NotApplicable
from ownership.claim import Claim
from ownership.errors import ClaimError
from ownership.evidence import SCALES, STATISTICS, Statistic, score_one
from ownership.files import Progress, silent
from ownership.paper import paper_tests
from ownership.plan import REQUIRED_STRATA
from ownership.probes import ask, problems_with
from ownership.report import AuditorMember, Report, TestResult
from ownership.scores import watermark_hits
from ownership.similarity import raw_l2
from ownership.stats import ImageLevelTest, image_level_test, rank_pvalue
from ownership.suspect import ANSWER_KINDS, Suspect

OUTSIDERS = "not trained on the private images"
"""The one stratum of dataset inference (rule 2)."""


def audit(
    claim: Claim,
    suspect: Suspect,
    *,
    auditor_panel: Sequence[tuple[Suspect, str]] = (),
    paper: bool = False,
    command: str | None = None,
    progress: Progress = silent,
) -> Report:
    """Tests whether the suspect was copied from the claim's victim.

    H0 of each test: the suspect is one more independent encoder of one of the panel's strata. H1: it lies further
    towards the victim than they do. Unit: one model. Assumption: scores of a stratum are normal on the test's scale.

    Args:
        claim: what the owner fixed.
        suspect: the encoder, from `load_suspect`.
        auditor_panel: independent encoders that the auditor brings, each with a statement of where it comes from: a
            claim that calls too many of them copies is indiscriminate.
        paper: whether to add the paper's own tests, which never decide.
        command: how to repeat this audit, for the report.
        progress: called after every step.

    Returns:
        The report; auditing the same files again gives the same numbers.

    Raises:
        SuspectError: if the suspect cannot take the probes.
    """
    steps = 2 + len(STATISTICS) + len(auditor_panel)
    answers = ask(suspect.encoder, claim.probes, "suspect")
    progress("auditing", 1, steps)
    problems = problems_with(answers, suspect.encoder, claim.probes, claim.plan)
    progress("auditing", 2, steps)
    results, skipped = [], dict.fromkeys(STATISTICS, "the answers cannot be tested") if problems else {}
    if not problems:
        context = claim.context
        scores, skipped = score_one(answers, context)
        sayable = ANSWER_KINDS[suspect.answers]
        for name in set(scores) - set(scores if sayable is None else sayable):
            del scores[name]
            skipped[name] = f"it needs representations; the suspect is declared to give {suspect.answers}"
        for i, (name, statistic) in enumerate(STATISTICS.items()):
            if name in scores:
                try:
                    results.append(_test(statistic, scores[name], answers, claim, context))
                except NotApplicable as e:
                    skipped[name] = str(e)
            progress("auditing", 3 + i, steps)
    brought = []
    for i, (independent, provenance) in enumerate(auditor_panel):
        brought.append(_auditor_member(claim, independent, provenance, [r.name for r in results]))
        progress("auditing the auditor's own encoders", 3 + len(STATISTICS) + i, steps)
    return Report(
        plan=claim.plan,
        claim=_describe_claim(claim),
        suspect={
            "name": suspect.name,
            "format": suspect.format,
            "sha256": suspect.sha256,
            "bytes": suspect.size,
            "architecture": suspect.architecture,
            "dim": answers.dim,
            "answers": suspect.answers,
        },
        results=tuple(results),
        skipped=skipped,
        problems=tuple(problems),
        versions=versions(),
        command=command or f"turnmark audit {shlex.quote(suspect.name)} --claim CLAIM",
        auditor_panel=tuple(brought),
        paper=paper_tests(claim, answers) if paper and not problems and suspect.answers == "representations" else (),
    )


def _auditor_member(claim: Claim, independent: Suspect, provenance: str, names: Sequence[str]) -> AuditorMember:
    """An auditor's encoder, scored as the suspect is, by the tests that ran on the suspect."""
    answers = ask(independent.encoder, claim.probes, independent.name)
    problems = problems_with(answers, independent.encoder, claim.probes, claim.plan)
    values = {}
    for name in () if problems else names:
        with suppress(NotApplicable):
            values[name] = STATISTICS[name].score(answers, claim.context)
    return AuditorMember(
        name=independent.name,
        sha256=independent.sha256,
        provenance=provenance,
        values={name: value for name, value in values.items() if math.isfinite(value)},
        problems=tuple(problems),
    )


def _test(statistic: Statistic, value: float, answers: Answers, claim: Claim, context: Context) -> TestResult:
    """One statistic of the suspect against every stratum that has enough members with a score."""
    groups = strata_scores(statistic, claim)
    if not groups:
        raise NotApplicable(f"no stratum has {claim.plan.min_stratum} members with a score")
    required = () if statistic.needs_outsiders else REQUIRED_STRATA
    result = TestResult(
        name=statistic.name,
        family=statistic.family,
        title=statistic.title,
        null_hypothesis=statistic.null_hypothesis,
        alternative=statistic.alternative,
        scale=statistic.scale,
        value=value,
        missing_strata=tuple(s for s in required if s not in groups),
        rank_pvalue=_symmetric_rank(statistic, value, groups, answers, context),
        members=groups,
        references=claim.reference_scores.get(statistic.name, {}),
        image_level=_papers_test(statistic, answers, claim, context),
    )
    try:
        _ = result.strata
    except ClaimError as e:
        raise NotApplicable(e.message) from e
    return result


def strata_scores(statistic: Statistic, claim: Claim) -> dict[str, dict[str, float]]:
    """Returns stratum -> member -> score of one statistic, for the strata with enough members."""
    scores = claim.scores.get(statistic.name, {})
    groups: dict[str, dict[str, float]] = {}
    for member in claim.members:
        if member.name not in scores:
            continue
        if not statistic.needs_outsiders:
            groups.setdefault(member.kind, {})[member.name] = scores[member.name]
        elif member.trained_on_private is False:
            groups.setdefault(OUTSIDERS, {})[member.name] = scores[member.name]
    return {s: by_name for s, by_name in groups.items() if len(by_name) >= claim.plan.min_stratum}


def _symmetric_rank(
    statistic: Statistic, value: float, groups: dict[str, dict[str, float]], answers: Answers, context: Context
) -> float:
    """Exact rank p, largest over strata.

    Where scores depend on the panel, each member is scored with the suspect in its place, so that suspect and members
    are treated alike.
    """
    forward, _ = SCALES[statistic.scale]
    by_name = {a.name: a for a in context.panel}

    def score(name: str, fixed: float) -> float:
        if not statistic.uses_panel:
            return fixed
        try:
            return statistic.score(by_name[name], context.swapping(by_name[name], answers))
        except NotApplicable:
            return fixed

    return max(
        rank_pvalue(forward(value), [forward(score(n, v)) for n, v in scores.items()], statistic.alternative)
        for scores in groups.values()
    )


def _papers_test(statistic: Statistic, answers: Answers, claim: Claim, context: Context) -> ImageLevelTest | None:
    """The paper's image-level t-test of this family, for comparison.

    Its "random model" is the first plain member of the victim's dimension.
    """
    benign = next((claim.answers[m.name] for m in claim.stratum("plain") if m.dim == context.victim.dim), None)
    if statistic.per_image is not None:
        private, public = statistic.per_image(answers, context)
        return image_level_test(private, public, "Private and public images score alike.", "greater")
    if benign is None:
        return None
    if statistic.name == "watermark_success":
        own, other = (watermark_hits(a.get("watermark"), context).astype(np.float64) for a in (answers, benign))
        null = "The mark is read from the suspect as often as from one benign encoder."
        return image_level_test(own, other, null, "greater")
    if statistic.name == "l2_distance":
        victim = context.victim.get("public")
        own, other = (raw_l2(victim, a.get("public")) for a in (answers, benign))
        return image_level_test(own, other, "The suspect is as far from the victim as one benign encoder.", "less")
    return None


def _describe_claim(claim: Claim) -> dict[str, Any]:
    return {
        "sha256": claim.sha256,
        "victim": {"sha256": claim.victim.sha256, "architecture": claim.victim.architecture, "dim": claim.victim.dim},
        "panel": [
            {
                "name": m.name,
                "kind": m.kind,
                "mark": m.mark,
                "data": m.data,
                "trained_on_private": m.trained_on_private,
                "sha256": m.sha256,
            }
            for m in claim.members
        ],
        "references": [m.name for m in claim.references],
        "dropped": list(claim.dropped),
        "watermark": claim.key is not None,
        "probes": {name: len(images) for name, images in sorted(claim.probes.items())},
        "image_size": list(claim.probes["public"].shape[1:]),
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
