"""The statistics of the three families of evidence: watermark, distance and dataset inference.

`STATISTICS` lists them all. Each scores the responses of one encoder (`watermark_scores`, `distance`,
`dataset_inference`), a suspect or a control, by the same code. The tests in `ownership.stats` compare the suspect's
score with the scores of the reference panel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ownership.evidence.dataset_inference import augmentation_scores, gmm_scores, loss_scores, mean_difference
from ownership.evidence.distance import cka, l2_distance, partial_rsa, partial_rsa_relative, partial_rsa_rotated
from ownership.evidence.partial_regression import partial_regression
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


def _identity(x: float) -> float:
    return x


def _tanh(x: float) -> float:
    return math.tanh(x)


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


SCALES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "fisher_z": (fisher_z, _tanh),
    "logit": (_logit, _expit),
    "log": (_log, math.exp),
    "identity": (_identity, _identity),
}
"""Name -> transformation to the variance-stabilised scale of the t-test, and its inverse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """A score of an encoder's responses, and how it is tested against the panel."""

    name: str
    family: str  # watermark, distance or inference
    title: str
    null_hypothesis: str
    score: Callable[[Responses, ScoringContext], float]
    scale: str  # name in SCALES
    alternative: Alternative = "greater"
    uses_panel: bool = False  # whether the score depends on the other panel members
    required: tuple[str, ...] = REQUIRED_STRATA  # strata without which its rejection alone does not suffice
    excludes_private_data: bool = False  # whether members trained on the private images are left out of the controls
    per_image: Callable[[Responses, ScoringContext], tuple[Array, Array]] | None = None  # private, public scores
    min_sd: float = 0.0  # lower bound of a stratum's standard deviation, on the scale


MIN_PROBABILITY_SD = 0.08
"""Lower bound of the standard deviation of `watermark_probability` in a stratum, on the logit scale.

It is 0.02 near a probability of 0.5, as much as sibling fine-tunes of one checkpoint varied in development. Where the
predictor is unsure of all members of a stratum, their scores vary less than those of independent encoders of a kind
that the stratum does not contain (docs/adr/0023)."""

_NULL_WATERMARK = "The owner's predictor detects the watermark in the suspect no better than in an independent encoder."
_NULL_DISTANCE = "The suspect's representations are no closer to the victim's than an independent encoder's."
_NULL_INFERENCE = "The private images differ from public images no more than for an encoder not trained on them."

STATISTICS: dict[str, Statistic] = {
    s.name: s
    for s in (
        Statistic(
            name="partial_rsa_relative",
            family="distance",
            title="Standardised partial RSA",
            null_hypothesis="The suspect's victim-specific similarity, standardised by its similarity to the panel, is "
            "no higher than an independent encoder's.",
            score=partial_rsa_relative,
            scale="identity",
            uses_panel=True,
        ),
        Statistic(
            name="partial_rsa",
            family="distance",
            title="Partial RSA on whitened representations",
            null_hypothesis="The suspect shares no more victim-specific similarity structure than an independent "
            "encoder does.",
            score=partial_rsa,
            scale="fisher_z",
            uses_panel=True,
        ),
        Statistic(
            name="partial_regression",
            family="distance",
            title="Standardised partial regression",
            null_hypothesis="The suspect predicts what is specific to the victim no better than what is specific to an "
            "independent encoder.",
            score=partial_regression,
            scale="identity",
            uses_panel=True,
        ),
        Statistic(
            name="watermark_probability",
            family="watermark",
            title="Watermark, probability of the true label",
            null_hypothesis=_NULL_WATERMARK,
            score=watermark_probability,
            scale="logit",
            min_sd=MIN_PROBABILITY_SD,
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
            title="Rotation-averaged partial RSA",
            null_hypothesis="The suspect's representations of rotated images share no more victim-specific similarity "
            "structure than an independent encoder's do.",
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
            score=mean_difference(gmm_scores),
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
            score=mean_difference(loss_scores),
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
            score=mean_difference(augmentation_scores),
            scale="identity",
            excludes_private_data=True,
            required=(),
            per_image=augmentation_scores,
        ),
    )
}
"""Every statistic, in the order of the report. The plan names those whose tests are primary."""


Scores = dict[str, dict[str, float]]
"""Statistic -> name of a panel member or reference -> score."""


def score_members(context: ScoringContext, names: Iterable[str] = tuple(STATISTICS)) -> Scores:
    """Return the scores of the panel's members, each against the other members."""
    return _table({m: context.without(m) for m in context.panel}, tuple(names))


def score_others(
    others: Iterable[Responses], context: ScoringContext, names: Iterable[str] = tuple(STATISTICS)
) -> Scores:
    """Return the scores of encoders outside the panel, against the whole panel."""
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
    """Return the score of each applicable statistic, and for each other statistic why it is not applicable."""
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
