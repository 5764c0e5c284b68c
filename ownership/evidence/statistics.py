"""The three families of evidence: what is measured on a suspect and, by the same code, on every panel member.

`STATISTICS` is the whole list. Each entry scores one encoder's answers to the probes (`watermark_scores`, `distance`,
`dataset_inference`); the tests in `ownership.stats` compare the suspect's score with the panel's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ownership.evidence.dataset_inference import augmentation_scores, gap, gmm_scores, loss_scores
from ownership.evidence.distance import cka, l2_distance, partial_rsa, partial_rsa_relative, partial_rsa_rotated
from ownership.evidence.responses import NotApplicable, Responses, ScoringContext
from ownership.evidence.similarity import Array
from ownership.evidence.watermark_scores import (
    watermark_aligned,
    watermark_auc,
    watermark_probability,
    watermark_success,
)
from ownership.plan import REQUIRED_STRATA, ROTATION_INVARIANT_STRATA
from ownership.stats import Alternative, fisher_z


def _logit(x: float) -> float:
    x = min(max(x, 1e-6), 1 - 1e-6)
    return math.log(x / (1 - x))


def _log(x: float) -> float:
    return math.log(max(x, 1e-12))


def _same(x: float) -> float:
    return x


def _tanh(x: float) -> float:
    return math.tanh(x)


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


SCALES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "fisher_z": (fisher_z, _tanh),
    "logit": (_logit, _expit),
    "log": (_log, math.exp),
    "identity": (_same, _same),
}
"""Name -> (to the variance-stabilised scale the t-test is made on, back)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """One number measured on an encoder's answers, and how it is tested against the panel."""

    name: str
    family: str  # watermark, distance, inference
    title: str
    null_hypothesis: str
    score: Callable[[Responses, ScoringContext], float]
    scale: str  # name in SCALES
    alternative: Alternative = "greater"
    uses_panel: bool = False  # the score depends on the other panel members
    required: tuple[str, ...] = REQUIRED_STRATA  # strata without which it cannot decide alone
    excludes_private_data: bool = False  # only members not trained on the private images are controls
    per_image: Callable[[Responses, ScoringContext], tuple[Array, Array]] | None = None  # private, public scores
    least_sd: float = 0.0  # a stratum's standard deviation counts as at least this, on the scale


_NULL_WATERMARK = "The owner's predictor reads the mark from the suspect no better than from an independent encoder."
MIN_PROBABILITY_SD = 0.08
"""Of `watermark_probability`, on the logit scale (.02 about one half): kin of a checkpoint varied by that in development.

Where a predictor is unsure of everybody in a stratum, their certainties are closer together than those of innocents of
a kind that nobody thought of (docs/adr/0023)."""

_NULL_DISTANCE = "The suspect's representations are no closer to the victim's than an independent encoder's."
_NULL_INFERENCE = "Private images stand out from public ones no more than in an encoder not trained on them."

STATISTICS: dict[str, Statistic] = {
    s.name: s
    for s in (
        Statistic(
            name="partial_rsa_relative",
            family="distance",
            title="Partial RSA relative to likeness to others",
            null_hypothesis="The suspect resembles the victim, beyond what it has in common with all, no more than an "
            "independent encoder resembles it, each in units of its likeness to other encoders.",
            score=partial_rsa_relative,
            scale="identity",
            uses_panel=True,
        ),
        Statistic(
            name="partial_rsa",
            family="distance",
            title="Partial RSA on whitened representations",
            null_hypothesis="The suspect shares no more of what is idiosyncratic to the victim than an independent "
            "encoder does.",
            score=partial_rsa,
            scale="fisher_z",
            uses_panel=True,
        ),
        Statistic(
            name="watermark_probability",
            family="watermark",
            title="Watermark, certainty of the predictor",
            null_hypothesis=_NULL_WATERMARK,
            score=watermark_probability,
            scale="logit",
            least_sd=MIN_PROBABILITY_SD,
        ),
        Statistic(
            name="watermark_auc",
            family="watermark",
            title="Watermark, area under the ROC curve",
            null_hypothesis=_NULL_WATERMARK,
            score=watermark_auc,
            scale="logit",
        ),
        Statistic(
            name="watermark_success",
            family="watermark",
            title="Watermark success rate",
            null_hypothesis=_NULL_WATERMARK,
            score=watermark_success,
            scale="logit",
        ),
        Statistic(
            name="partial_rsa_rotated",
            family="distance",
            title="Partial RSA, answers to turned images",
            null_hypothesis="The suspect's answers to turned images share no more of what is idiosyncratic to the "
            "victim's answers to upright ones than an independent encoder's do.",
            score=partial_rsa_rotated,
            scale="fisher_z",
            uses_panel=True,
            required=(*REQUIRED_STRATA, *ROTATION_INVARIANT_STRATA),
        ),
        Statistic(
            name="watermark_aligned",
            family="watermark",
            title="Watermark success rate after alignment",
            null_hypothesis=_NULL_WATERMARK,
            score=watermark_aligned,
            scale="logit",
        ),
        Statistic(
            name="cka",
            family="distance",
            title="Linear CKA",
            null_hypothesis=_NULL_DISTANCE,
            score=cka,
            scale="logit",
        ),
        Statistic(
            name="l2_distance",
            family="distance",
            title="Raw l2 distance",
            null_hypothesis=_NULL_DISTANCE,
            score=l2_distance,
            scale="log",
            alternative="less",
        ),
        Statistic(
            name="inference_gmm",
            family="inference",
            title="Dataset inference: mixture likelihood",
            null_hypothesis=_NULL_INFERENCE,
            score=gap(gmm_scores),
            scale="identity",
            excludes_private_data=True,
            required=(),
            per_image=gmm_scores,
        ),
        Statistic(
            name="inference_loss",
            family="inference",
            title="Dataset inference: contrastive loss",
            null_hypothesis=_NULL_INFERENCE,
            score=gap(loss_scores),
            scale="identity",
            excludes_private_data=True,
            required=(),
            per_image=loss_scores,
        ),
        Statistic(
            name="inference_augmentation",
            family="inference",
            title="Dataset inference: augmentation distance",
            null_hypothesis=_NULL_INFERENCE,
            score=gap(augmentation_scores),
            scale="identity",
            excludes_private_data=True,
            required=(),
            per_image=augmentation_scores,
        ),
    )
}
"""Every statistic, in the order of the report; which of them decide is the plan's business."""


Scores = dict[str, dict[str, float]]
"""Statistic -> name of a panel member or reference -> score."""


def score_members(context: ScoringContext, names: Iterable[str] = tuple(STATISTICS)) -> Scores:
    """Returns the scores of the panel's members, each against the other members."""
    return _table({m: context.without(m) for m in context.panel}, tuple(names))


def score_others(
    others: Iterable[Responses], context: ScoringContext, names: Iterable[str] = tuple(STATISTICS)
) -> Scores:
    """Returns the scores of encoders outside the panel against the whole panel."""
    return _table(dict.fromkeys(others, context), tuple(names))


def _table(pairs: dict[Responses, ScoringContext], names: tuple[str, ...]) -> Scores:
    out: Scores = {name: {} for name in names}
    for responses, context in pairs.items():
        for name, value in score_one(responses, context, names)[0].items():
            out[name][responses.name] = value
    return out


def score_one(
    responses: Responses, context: ScoringContext, names: Iterable[str] = tuple(STATISTICS)
) -> tuple[dict[str, float], dict[str, str]]:
    """Returns every score that applies, and for the others the reason why not."""
    scores: dict[str, float] = {}
    skipped: dict[str, str] = {}
    for name in names:
        try:
            value = STATISTICS[name].score(responses, context)
        except NotApplicable as e:
            skipped[name] = str(e)
            continue
        if math.isfinite(value):
            scores[name] = value
        else:
            skipped[name] = "the score is not finite"
    return scores, skipped
