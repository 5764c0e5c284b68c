"""Dataset inference: whether private images stand out from public ones in an encoder's representations."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch

from ownership.evidence.responses import NotApplicable, Responses, ScoringContext
from ownership.evidence.similarity import (
    Array,
)
from ownership.stats import standardized_mean_difference


def gmm_scores(suspect: Responses, context: ScoringContext) -> tuple[Array, Array]:
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


def loss_scores(suspect: Responses, context: ScoringContext) -> tuple[Array, Array]:
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


def augmentation_scores(suspect: Responses, context: ScoringContext) -> tuple[Array, Array]:
    """Minus the mean l2 distance between an image and its augmentations: private, public (paper, Table 19)."""

    def score(raw: Array, views: Array) -> Array:
        n = len(raw)
        distances: Array = sum(np.linalg.norm(raw - views[i * n : (i + 1) * n], axis=1) for i in range(2)) / 2
        return -distances

    private = suspect.get("private")
    public = suspect.get("public")[: len(private)]
    return score(private, suspect.get("private_views")), score(public, suspect.get("outside_views"))


def gap(
    scores: Callable[[Responses, ScoringContext], tuple[Array, Array]],
) -> Callable[[Responses, ScoringContext], float]:
    """The statistic of a pair of score samples: their standardised difference, private minus public."""

    def statistic(suspect: Responses, context: ScoringContext) -> float:
        return standardized_mean_difference(*scores(suspect, context))

    return statistic
