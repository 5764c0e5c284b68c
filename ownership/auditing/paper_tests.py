"""The tests of the paper, to compare with its Tables 5, 18 and 19. They give false positives and do not decide.

Their unit is the image or the batch, and their null model is one "random model": here the first plain panel member of
the victim's dimension. The paper's released code lacks these tests; Table 5 is reconstructed from its numbers.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import stats

from ownership.claims.claim import Claim
from ownership.evidence.dataset_inference import augmentation_scores
from ownership.evidence.responses import NotApplicable, Responses
from ownership.evidence.similarity import Array, raw_l2
from ownership.evidence.watermark_scores import watermark_hits
from ownership.verdict.results import PaperTest

BATCHES = 30
"""Table 5's p, t and effects fit a pooled, two-sided t-test of 30 against 30 measurements in all four rows."""


def paper_tests(claim: Claim, responses: Responses) -> tuple[PaperTest, ...]:
    """Return what the paper computes of a suspect, without the rows that cannot be computed.

    Args:
        claim: The claim; its first plain member of the victim's dimension stands for the paper's random model.
        responses: Responses of the suspect to the claim's probes.
    """
    rows = []
    for test in (_table_5, _table_18, _table_19):
        try:
            rows.append(test(claim, responses))
        except NotApplicable:
            continue
    return tuple(rows)


def _random_model(claim: Claim) -> Responses:
    for member in claim.stratum("plain"):
        if member.dim == claim.victim.dim:
            return claim.responses[member.name]
    raise NotApplicable("the panel has no plain member of the victim's dimension")


def _table_5(claim: Claim, responses: Responses) -> PaperTest:
    """Return the test of watermark success in 30 + 30 batches.

    H0: the suspect's batches have the random model's mean. H1: another mean. Unit: a batch of probes. Batches are not
    replicates of a model, hence the false positives. Pooled variance, two-sided.
    """
    own, other = (watermark_hits(a, claim.context).astype(np.float64) for a in (responses, _random_model(claim)))
    if len(own) < 2 * BATCHES:
        raise NotApplicable("too few watermark probes for 30 batches")
    a, b = (np.array([batch.mean() for batch in np.array_split(x, BATCHES)]) for x in (own, other))
    return _row("5", "watermark success, 30 + 30 batches", a, b, "a plain panel member", "two-sided")


def _table_18(claim: Claim, responses: Responses) -> PaperTest:
    """Return the mean l2 distance to the victim on private images, or on public ones if there are none."""
    name = "private" if "private" in claim.probes else "public"
    victim, random = claim.responses[claim.victim.name], _random_model(claim)
    if responses.dim != claim.victim.dim:
        raise NotApplicable("l2 distance needs the victim's dimension")
    own, other = (float(raw_l2(victim.get(name), a.get(name)).mean()) for a in (responses, random))
    return PaperTest(
        table="18",
        title=f"l2 distance to the victim on {name} images",
        suspect=own,
        other=other,
        other_is="a plain panel member",
        statistic=None,
        df=None,
        pvalue=None,
        alternative="not tested",
    )


def _table_19(claim: Claim, responses: Responses) -> PaperTest:
    """Return the test of how much less private images change under augmentation (scores are minus the distance).

    H0: private images change as much as public ones. H1: less. Unit: one image. Pooled variance, one-sided.
    """
    private, public = augmentation_scores(responses, claim.context)
    return _row(
        "19", "minus the distance of an image to its augmentations", private, public, "public images", "greater"
    )


def _row(
    table: str, title: str, a: Array, b: Array, other_is: str, alternative: Literal["two-sided", "greater"]
) -> PaperTest:
    statistic: float | None = None
    pvalue: float | None = None
    if a.var() + b.var() > 0:
        result = stats.ttest_ind(a, b, equal_var=True, alternative=alternative)
        statistic, pvalue = float(result.statistic), float(result.pvalue)
    return PaperTest(
        table=table,
        title=title,
        suspect=float(a.mean()),
        other=float(b.mean()),
        other_is=other_is,
        statistic=statistic,
        df=len(a) + len(b) - 2,
        pvalue=pvalue,
        alternative=alternative,
    )
