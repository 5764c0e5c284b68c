"""Test one statistic of a suspect against the panel's scores, stratum by stratum."""

from __future__ import annotations

import numpy as np

from ownership.claims.claim import Claim
from ownership.claims.strata import scores_at, strata_scores
from ownership.errors import ClaimError
from ownership.evidence.responses import NotApplicable, Responses, ScoringContext
from ownership.evidence.similarity import raw_l2
from ownership.evidence.statistics import SCALES, STATISTICS, Statistic
from ownership.evidence.watermark_scores import watermark_hits
from ownership.stats import ImageLevelTest, image_level_test, rank_pvalue
from ownership.verdict.results import TestResult


def panel_test(
    name: str, value: float, responses: Responses, claim: Claim, context: ScoringContext, *, interim: int | None = None
) -> TestResult:
    """Test one statistic of the suspect against every stratum that has enough members with a score.

    Args:
        name: Name of the statistic.
        value: Score of the suspect.
        responses: Responses of the suspect to the probes of this analysis.
        claim: The claim with the panel.
        context: Scoring context of the claim for the probes of this analysis.
        interim: Number of queries of an interim analysis; None for the final analysis.

    Raises:
        NotApplicable: if no stratum can be tested against.
    """
    statistic = STATISTICS[name]
    groups = strata_scores(statistic, claim, interim)
    if not groups:
        raise NotApplicable(f"no stratum has {claim.plan.min_stratum} members with a score")
    result = TestResult(
        name=statistic.name,
        family=statistic.family,
        title=statistic.title,
        null_hypothesis=statistic.null_hypothesis,
        alternative=statistic.alternative,
        scale=statistic.scale,
        value=value,
        missing_strata=tuple(s for s in statistic.required if s not in groups),
        rank_pvalue=_symmetric_rank(statistic, value, groups, responses, context),
        members=groups,
        references=scores_at(claim, interim, references=True).get(name, {}),
        image_level=_papers_test(statistic, responses, claim, context) if interim is None else None,
    )
    try:
        _ = result.strata
    except ClaimError as e:
        raise NotApplicable(e.message) from e
    return result


def _symmetric_rank(
    statistic: Statistic,
    value: float,
    groups: dict[str, dict[str, float]],
    responses: Responses,
    context: ScoringContext,
) -> float:
    """Return the exact rank p-value, the largest over the strata.

    Where scores depend on the panel, each member is scored with the suspect in its place: suspect and members are then
    exchangeable.
    """
    forward, _ = SCALES[statistic.scale]
    by_name = {a.name: a for a in context.panel}

    def score(name: str, fixed: float) -> float:
        if not statistic.uses_panel:
            return fixed
        try:
            return statistic.score(by_name[name], context.replacing(by_name[name], responses))
        except NotApplicable:
            return fixed

    return max(
        rank_pvalue(forward(value), [forward(score(n, v)) for n, v in scores.items()], statistic.alternative)
        for scores in groups.values()
    )


def _papers_test(
    statistic: Statistic, responses: Responses, claim: Claim, context: ScoringContext
) -> ImageLevelTest | None:
    """Return the paper's image-level t-test of this statistic, for comparison; None if it has none.

    The first plain member of the victim's dimension stands for the paper's "random model".
    """
    benign = next((claim.responses[m.name] for m in claim.stratum("plain") if m.dim == context.victim.dim), None)
    if statistic.per_image is not None:
        private, public = statistic.per_image(responses, context)
        return image_level_test(private, public, "Private and public images score alike.", "greater")
    if benign is None:
        return None
    if statistic.name == "watermark_success":
        own, other = (watermark_hits(a, context).astype(np.float64) for a in (responses, benign))
        null = "The watermark success rate of the suspect is that of one benign encoder."
        return image_level_test(own, other, null, "greater")
    if statistic.name == "l2_distance":
        victim = context.victim.get("public")
        own, other = (raw_l2(victim, a.get("public")) for a in (responses, benign))
        return image_level_test(own, other, "The suspect is as far from the victim as one benign encoder.", "less")
    return None
