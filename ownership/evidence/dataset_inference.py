"""Dataset inference: whether an encoder represents the victim's private images differently from public ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch

from ownership.evidence.responses import NotApplicable, Responses, ScoringContext
from ownership.evidence.similarity import Array
from ownership.stats import standardized_mean_difference


def gmm_scores(suspect: Responses, context: ScoringContext) -> tuple[Array, Array]:
    """Return log-likelihoods of held-out private images and of public images under a Gaussian mixture.

    A diagonal mixture is fitted to the standardised representations of one half of the private images. The other half
    and as many public images are scored. A model that was trained on the private images gives them higher likelihoods.

    Returns:
        `(p / 2,)` private and `(p,)` public scores.

    References:
        [1] Dziedzic et al., Dataset Inference for Self-Supervised Models, NeurIPS 2022. Their script halves a two-sided
            p-value whatever its sign; here the test is one-sided.
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
    """Return the contrastive alignment of private and of public images (paper, section 5.4).

    The score of an image is the cosine similarity of the projections of its two views by the victim's projection head,
    which is its positive-pair term of the NT-Xent loss. A higher score is a lower loss.

    Returns:
        `(p,)` private and `(p,)` public scores.

    Raises:
        NotApplicable: if the claim has no projection head, or the representations have another length.
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
    """Return minus the mean l2 distance between an image and its two augmented views (paper, Table 19).

    Returns:
        `(p,)` private and `(p,)` public scores.
    """

    def score(raw: Array, views: Array) -> Array:
        n = len(raw)
        distances: Array = sum(np.linalg.norm(raw - views[i * n : (i + 1) * n], axis=1) for i in range(2)) / 2
        return -distances

    private = suspect.get("private")
    public = suspect.get("public")[: len(private)]
    return score(private, suspect.get("private_views")), score(public, suspect.get("outside_views"))


def mean_difference(
    scores: Callable[[Responses, ScoringContext], tuple[Array, Array]],
) -> Callable[[Responses, ScoringContext], float]:
    """Return the statistic of per-image scores: Cohen's d of private minus public images."""

    def statistic(suspect: Responses, context: ScoringContext) -> float:
        return standardized_mean_difference(*scores(suspect, context))

    return statistic
