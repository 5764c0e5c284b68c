"""The three families of evidence: what is measured on a suspect and, by the same code, on every panel member.

`STATISTICS` is the whole list. Each entry scores one encoder's answers to the probes; the tests in `ownership.stats`
compare the suspect's score with the panel's. Nothing here knows whom it scores.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ownership.plan import Plan
from ownership.similarity import (
    Array,
    covariance,
    linear_cka,
    partial_correlation,
    raw_l2,
    ridge_map,
    rsa_vector,
)
from ownership.stats import Alternative, fisher_z, standardised_gap


class NotApplicable(Exception):
    """A statistic cannot be computed on these answers; the text says why and goes into the report."""


@dataclass(eq=False, slots=True)
class Answers:
    """One encoder's representations of the probes.

    Sets (rows are images): `public` `(n, d)`; `watermark` `(2 w, d)`; for dataset inference `private` `(p, d)` with
    `private_views` `(2 p, d)`, and `outside_views` `(2 p, d)`, views of the first p public probes.
    """

    name: str
    sets: dict[str, NDArray[np.float32]]
    _rsa: NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def dim(self) -> int:
        """Length of a representation."""
        return int(self.sets["public"].shape[1])

    def get(self, name: str) -> Array:
        """Returns the representations of a probe set in float64.

        Raises:
            NotApplicable: if the claim has no such set.
        """
        if name not in self.sets:
            raise NotApplicable(f"the claim has no {name.replace('_', ' ')} probes")
        return self.sets[name].astype(np.float64)

    def rsa(self, plan: Plan) -> NDArray[np.float32]:
        """Returns the similarity structure over the public probes (`rsa_vector`), computed once."""
        if self._rsa is None:
            self._rsa = rsa_vector(self.get("public"), plan.rsa_directions, plan.rsa_shrinkage)
        return self._rsa


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a score is taken against: the victim's answers, the panel's, and the owner's secrets."""

    plan: Plan
    victim: Answers
    panel: tuple[Answers, ...]
    watermark_labels: NDArray[np.int64] | None = None  # (2 w,)
    predictor: nn.Module | None = None
    projection_head: nn.Module | None = None

    def without(self, member: Answers) -> Context:
        """Returns the context with one member left out of the panel."""
        return replace(self, panel=tuple(m for m in self.panel if m is not member))

    def swapping(self, member: Answers, other: Answers) -> Context:
        """Returns the context with one member replaced by another encoder."""
        return replace(self, panel=tuple(other if m is member else m for m in self.panel))


# ---- watermark -------------------------------------------------------------------------------------------------


def watermark_hits(answers: Array, context: Context) -> NDArray[np.bool_]:
    """Returns for each rotated probe whether the owner's predictor reads its label from these answers, `(2 w,)`."""
    if context.predictor is None or context.watermark_labels is None:
        raise NotApplicable("the claim has no watermark predictor")
    if answers.shape[1] != context.victim.dim:
        raise NotApplicable(f"representations have {answers.shape[1]} numbers, the victim's {context.victim.dim}")
    with torch.inference_mode():
        logits = context.predictor(torch.from_numpy(answers.astype(np.float32)))
    hits: NDArray[np.bool_] = logits.argmax(1).numpy() == context.watermark_labels
    return hits


def _rate(hits: NDArray[np.bool_]) -> float:
    """Share of hits, kept half a probe away from 0 and 1 so that its logit is finite."""
    return float(np.clip(hits.mean(), 0.5 / len(hits), 1 - 0.5 / len(hits)))


def watermark_success(suspect: Answers, context: Context) -> float:
    """Watermark success rate of the owner's predictor on the suspect's raw representations (paper, section 5.1)."""
    return _rate(watermark_hits(suspect.get("watermark"), context))


def watermark_aligned(suspect: Answers, context: Context) -> float:
    """The same after a ridge map suspect -> victim fitted on the unrotated public probes."""
    weights, intercept = ridge_map(suspect.get("public"), context.victim.get("public"), context.plan.ridge_penalty)
    return _rate(watermark_hits(suspect.get("watermark") @ weights + intercept, context))


# ---- representation distance -----------------------------------------------------------------------------------


def partial_rsa(suspect: Answers, context: Context) -> float:
    """Partial RSA: correlation of the victim's and the suspect's similarity structures, given the panel's."""
    vectors = [a.rsa(context.plan) for a in (context.victim, suspect, *context.panel)]
    value = partial_correlation(covariance(vectors), 0, 1, list(range(2, len(vectors))))
    if math.isnan(value):
        raise NotApplicable("the similarity structure is that of the panel, or constant")
    return value


def cka(suspect: Answers, context: Context) -> float:
    """Linear CKA between suspect and victim on the public probes."""
    return linear_cka(context.victim.get("public"), suspect.get("public"))


def l2_distance(suspect: Answers, context: Context) -> float:
    """Mean l2 distance between the raw representations of suspect and victim (paper, Table 18)."""
    return float(_l2(suspect, context).mean())


def _l2(suspect: Answers, context: Context) -> Array:
    if suspect.dim != context.victim.dim:
        raise NotApplicable(f"representations have {suspect.dim} numbers, the victim's {context.victim.dim}")
    return raw_l2(context.victim.get("public"), suspect.get("public"))


# ---- dataset inference -----------------------------------------------------------------------------------------


def gmm_scores(suspect: Answers, context: Context) -> tuple[Array, Array]:
    """Log-likelihoods of held-out private and of public images under a mixture fitted to other private images.

    Half of the private images fit a diagonal Gaussian mixture on standardised representations, the other half and
    the public images are scored; a suspect that carries knowledge of the private set scores private ones higher.

    References:
        [1] Dziedzic et al., Dataset Inference for Self-Supervised Models, NeurIPS 2022 (their script halves a
            two-sided p without looking at the sign; here the direction is tested).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    private = suspect.get("private")
    public = suspect.get("public")[: len(private)]
    half = len(private) // 2
    mean, sd = private[:half].mean(0), private[:half].std(0) + 1e-6
    mixture = GaussianMixture(
        min(context.plan.gmm_components, max(1, half // 20)),
        covariance_type="diag",
        reg_covar=1e-3,
        random_state=context.plan.seed % 2**32,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit((private[:half] - mean) / sd)
    return (
        np.asarray(mixture.score_samples((private[half:] - mean) / sd)),
        np.asarray(mixture.score_samples((public - mean) / sd)),
    )


def loss_scores(suspect: Answers, context: Context) -> tuple[Array, Array]:
    """Contrastive alignment of two views through the victim's projection head: private, public (paper, section 5.4).

    The score of an image is the cosine similarity of the projections of its two views, the part of the NT-Xent loss
    that belongs to the image; higher means lower loss.
    """
    head = context.projection_head
    if head is None:
        raise NotApplicable("the claim has no projection head")
    if suspect.dim != context.victim.dim:
        raise NotApplicable(f"representations have {suspect.dim} numbers, the victim's {context.victim.dim}")

    def score(views: Array) -> Array:
        with torch.inference_mode():
            z = torch.nn.functional.normalize(head(torch.from_numpy(views.astype(np.float32))), dim=1).double()
        n = len(z) // 2
        cosine: Array = (z[:n] * z[n:]).sum(1).numpy()
        return cosine

    return score(suspect.get("private_views")), score(suspect.get("outside_views"))


def augmentation_scores(suspect: Answers, context: Context) -> tuple[Array, Array]:
    """Minus the mean l2 distance between an image and its augmentations: private, public (paper, Table 19)."""

    def score(raw: Array, views: Array) -> Array:
        n = len(raw)
        distances: Array = sum(np.linalg.norm(raw - views[i * n : (i + 1) * n], axis=1) for i in range(2)) / 2
        return -distances

    private = suspect.get("private")
    public = suspect.get("public")[: len(private)]
    return score(private, suspect.get("private_views")), score(public, suspect.get("outside_views"))


def _gap(
    scores: Callable[[Answers, Context], tuple[Array, Array]],
) -> Callable[[Answers, Context], float]:
    """The statistic of a pair of score samples: their standardised difference, private minus public."""

    def statistic(suspect: Answers, context: Context) -> float:
        return standardised_gap(*scores(suspect, context))

    return statistic


# ---- the list --------------------------------------------------------------------------------------------------


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
    score: Callable[[Answers, Context], float]
    scale: str  # name in SCALES
    alternative: Alternative = "greater"
    uses_panel: bool = False  # the score depends on the other panel members
    needs_outsiders: bool = False  # only members not trained on the private images are controls
    per_image: Callable[[Answers, Context], tuple[Array, Array]] | None = None  # private, public scores


_NULL_WATERMARK = "The owner's predictor reads the mark from the suspect no better than from an independent encoder."
_NULL_DISTANCE = "The suspect's representations are no closer to the victim's than an independent encoder's."
_NULL_INFERENCE = "Private images stand out from public ones no more than in an encoder not trained on them."

STATISTICS: dict[str, Statistic] = {
    s.name: s
    for s in (
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
            name="watermark_success",
            family="watermark",
            title="Watermark success rate",
            null_hypothesis=_NULL_WATERMARK,
            score=watermark_success,
            scale="logit",
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
            score=_gap(gmm_scores),
            scale="identity",
            needs_outsiders=True,
            per_image=gmm_scores,
        ),
        Statistic(
            name="inference_loss",
            family="inference",
            title="Dataset inference: contrastive loss",
            null_hypothesis=_NULL_INFERENCE,
            score=_gap(loss_scores),
            scale="identity",
            needs_outsiders=True,
            per_image=loss_scores,
        ),
        Statistic(
            name="inference_augmentation",
            family="inference",
            title="Dataset inference: augmentation distance",
            null_hypothesis=_NULL_INFERENCE,
            score=_gap(augmentation_scores),
            scale="identity",
            needs_outsiders=True,
            per_image=augmentation_scores,
        ),
    )
}
"""Every statistic, in the order of the report; which of them decide is the plan's business."""


def score_members(context: Context, members: Iterable[Answers]) -> dict[str, dict[str, float]]:
    """Returns the scores of panel members, each against the other members: statistic -> member name -> score."""
    out: dict[str, dict[str, float]] = {name: {} for name in STATISTICS}
    for member in members:
        for name, value in score_one(member, context.without(member))[0].items():
            out[name][member.name] = value
    return out


def score_one(answers: Answers, context: Context) -> tuple[dict[str, float], dict[str, str]]:
    """Returns every score that applies, and for the others the reason why not."""
    scores: dict[str, float] = {}
    skipped: dict[str, str] = {}
    for name, statistic in STATISTICS.items():
        try:
            value = statistic.score(answers, context)
        except NotApplicable as e:
            skipped[name] = str(e)
            continue
        if math.isfinite(value):
            scores[name] = value
        else:
            skipped[name] = "the score is not finite"
    return scores, skipped
