"""The scores of the three families of evidence: one number from one encoder's answers, in a context.

Nothing here knows whom it scores; `ownership.evidence.STATISTICS` says how each score is tested.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import rankdata

from ownership.answers import Answers, Context, NotApplicable
from ownership.similarity import (
    Array,
    Structure,
    covariance,
    linear_cka,
    partial_correlation,
    partial_correlations,
    raw_l2,
    ridge_map,
)
from ownership.stats import MIN_STRATUM, fisher_z, standardised_gap

CERTAINTY_ERRORS = 3
"""Standard errors that `watermark_certainty` takes off: chance alone goes that far in one of 740 suspects."""

# ---- watermark -------------------------------------------------------------------------------------------------


def watermark_hits(answers: Answers, context: Context) -> NDArray[np.bool_]:
    """Returns for each rotated probe whether the owner's predictor reads its label from these answers, `(2 w,)`."""
    logits, labels = watermark_logits(answers, context)
    hits: NDArray[np.bool_] = logits.argmax(1) == labels
    return hits


def watermark_logits(answers: Answers, context: Context) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The predictor's logits of these answers, `(2 w, 2)`, and the true labels."""
    if context.predictor is None or context.watermark_labels is None:
        raise NotApplicable("the claim has no watermark predictor")
    read = answers.get("watermark")
    if read.shape[1] != context.victim.dim:
        raise NotApplicable(f"representations have {read.shape[1]} numbers, the victim's {context.victim.dim}")
    if context.predictor.pairs:
        if context.watermark_images is None:
            raise NotApplicable("the claim does not say which images its rotated probes show")
        read = np.concatenate([read, answers.get("public")[context.watermark_images]], axis=1)
    with torch.inference_mode():
        logits = context.predictor(torch.from_numpy(read.astype(np.float32)))
    return logits.numpy(), context.watermark_labels


def _rate(hits: NDArray[np.bool_]) -> float:
    """Share of hits, with a finite logit."""
    return _inside(float(hits.mean()), len(hits))


def _inside(rate: float, n: int) -> float:
    """A rate kept half a probe away from 0 and 1, so that its logit is finite."""
    return min(max(rate, 0.5 / n), 1 - 0.5 / n)


def watermark_auc(suspect: Answers, context: Context) -> float:
    """Area under the ROC curve of the predictor's log-odds on the suspect's raw representations (docs/adr/0019).

    The share of pairs of rotated probes, one of each label, in which the predictor finds label 1 likelier for the one
    that has it; ties count half. Unlike the success rate it needs no threshold, which answers unlike the victim's
    miss: then every probe gets the same label, and exactly half are hits whoever is asked.
    """
    logits, labels = watermark_logits(suspect, context)
    marked = labels == 1
    ones = int(marked.sum())
    if not 0 < ones < len(labels):
        raise NotApplicable("all watermark probes have the same label")
    ranks = rankdata(logits[:, 1].astype(np.float64) - logits[:, 0])
    wins = float(ranks[marked].sum()) - ones * (ones + 1) / 2
    return _inside(wins / (ones * (len(labels) - ones)), len(labels))


def watermark_certainty(suspect: Answers, context: Context) -> float:
    """Mean probability that the predictor gives to the true label, less three standard errors (docs/adr/0023).

    The mean over the probes of each label, averaged over the two labels: a predictor that says the same of every probe
    is at one half, however sure. One that leans the right way, but faintly, stays close to it; one that is sure of
    everything and right half the time may be off by chance, and has a standard error that says so.
    """
    logits, labels = watermark_logits(suspect, context)
    return _inside(certainty(logits, labels), len(labels))


def certainty(logits: NDArray[np.float32], labels: NDArray[np.int64], errors: float = CERTAINTY_ERRORS) -> float:
    """Returns the mean probability of the true labels `(n,)` by logits `(n, 2)`, less so many standard errors."""
    given = softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    halves = [given[labels == k] for k in (0, 1)]
    if min(map(len, halves)) < 2:
        raise NotApplicable("almost all watermark probes have the same label")
    error = math.sqrt(sum(float(h.var(ddof=1)) / len(h) for h in halves)) / 2
    return sum(float(h.mean()) for h in halves) / 2 - errors * error


def watermark_success(suspect: Answers, context: Context) -> float:
    """Watermark success rate of the owner's predictor on the suspect's raw representations (paper, section 5.1)."""
    return _rate(watermark_hits(suspect, context))


def watermark_aligned(suspect: Answers, context: Context) -> float:
    """The same after a ridge map suspect -> victim fitted on the unrotated public probes."""
    weights, intercept = ridge_map(suspect.get("public"), context.victim.get("public"), context.plan.ridge_penalty)
    sets = {name: (suspect.get(name) @ weights + intercept).astype(np.float32) for name in ("public", "watermark")}
    return _rate(watermark_hits(Answers(suspect.name, sets), context))


# ---- representation distance -----------------------------------------------------------------------------------


def partial_rsa(suspect: Answers, context: Context) -> float:
    """Partial RSA: correlation of the victim's and the suspect's similarity structures, given the panel's."""
    return _partial(*(a.rsa(context.plan) for a in (context.victim, suspect, *context.teaching)))


def partial_rsa_relative(suspect: Answers, context: Context) -> float:
    """How far the victim stands out among everybody whom the suspect resembles (docs/adr/0010).

    z_k is the Fisher z of partial RSA between the suspect and k, given all others, for k the victim and each panel
    member that is nobody's student; the score is (z_victim - mean of the members' z) / sqrt(variance of the members' z
    + .01^2), the floor only so that the victim itself gets a number. An encoder that has nothing to do with the victim
    resembles it as it resembles others of that kind, whether it resembles all of them much (siblings) or little (a bad
    copy).

    Mean and variance leave out a tenth of the members at either end, at least one: a thief who mixes a member that he
    knows (the victim's public checkpoint) into his answers must not widen the spread that he is measured by.
    """
    if len(context.teaching) < MIN_STRATUM:
        raise NotApplicable(f"the panel has {len(context.teaching)} other members")
    structures = [a.rsa(context.plan) for a in (suspect, context.victim, *context.teaching)]
    cov = covariance(structures)
    if not np.diag(cov).min() > 0:
        raise NotApplicable("a similarity structure is constant")
    z = [fisher_z(float(r)) for r in partial_correlations(cov, 0)]
    return beyond_others(z[0], z[1:])


def beyond_others(value: float, others: Sequence[float]) -> float:
    """Returns (value - mean) / sqrt(variance + .01^2) of the others, a tenth of which is left out at either end."""
    cut = max(1, len(others) // 10)
    kept = sorted(others)[cut:-cut]
    return (value - float(np.mean(kept))) / math.hypot(float(np.std(kept, ddof=1)), 0.01)


def partial_rsa_turned(suspect: Answers, context: Context) -> float:
    """Partial RSA of the victim's answers to upright images with the suspect's mean answers to turned copies.

    A thief who trains the mark away makes his surrogate answer to a turned image what the victim answers to the
    upright one; the mean over turned copies brings the victim's structure out, which one view of it hides. Given the
    panel's structures of both kinds: what any encoder, or any rotation-invariant one, shares is no evidence.
    """
    plan = context.plan
    upright = (a.rsa_upright(plan) for a in (context.victim, *context.panel))
    return _partial(next(upright), suspect.rsa_turned(plan), *upright, *(a.rsa_turned(plan) for a in context.panel))


def _partial(victim: Structure, suspect: Structure, *given: Structure) -> float:
    value = partial_correlation(covariance([victim, suspect, *given]), 0, 1, list(range(2, 2 + len(given))))
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


def gap(
    scores: Callable[[Answers, Context], tuple[Array, Array]],
) -> Callable[[Answers, Context], float]:
    """The statistic of a pair of score samples: their standardised difference, private minus public."""

    def statistic(suspect: Answers, context: Context) -> float:
        return standardised_gap(*scores(suspect, context))

    return statistic
