"""Watermark statistics: how well the owner's rotation predictor classifies an encoder's representations."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import rankdata

from ownership.evidence.responses import NotApplicable, Responses, ScoringContext
from ownership.evidence.similarity import ridge_map

STANDARD_ERRORS = 3
"""Standard errors that `watermark_probability` subtracts; chance exceeds them in 1 of 740 independent suspects."""


def watermark_hits(responses: Responses, context: ScoringContext) -> NDArray[np.bool_]:
    """Return for each rotated probe whether the owner's predictor classifies its rotation correctly, `(2 w,)`."""
    logits, labels = watermark_logits(responses, context)
    hits: NDArray[np.bool_] = logits.argmax(1) == labels
    return hits


def watermark_logits(responses: Responses, context: ScoringContext) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the predictor's logits of the rotated probes, `(2 w, 2)`, and the true labels, `(2 w,)`.

    Raises:
        NotApplicable: if the claim has no watermark, or the representations have another length than the victim's.
    """
    if context.predictor is None or context.watermark_labels is None:
        raise NotApplicable("the claim has no watermark predictor")
    read = responses.get("watermark")
    if read.shape[1] != context.victim.dim:
        raise NotApplicable(f"representations have {read.shape[1]} dimensions, the victim's {context.victim.dim}")
    if context.predictor.pairs:
        if context.watermark_sources is None:
            raise NotApplicable("the claim does not say which images its rotated probes show")
        read = np.concatenate([read, responses.get("public")[context.watermark_sources]], axis=1)
    with torch.inference_mode():
        logits = context.predictor(torch.from_numpy(read.astype(np.float32)))
    return logits.numpy(), context.watermark_labels


def _rate(hits: NDArray[np.bool_]) -> float:
    """Share of hits, clipped."""
    return _clipped(float(hits.mean()), len(hits))


def _clipped(rate: float, n: int) -> float:
    """A rate, kept half a probe away from 0 and 1, so that its logit is finite."""
    return min(max(rate, 0.5 / n), 1 - 0.5 / n)


def watermark_auc(suspect: Responses, context: ScoringContext) -> float:
    """Return the area under the ROC curve of the predictor's log-odds (docs/adr/0019).

    The share of pairs of rotated probes, one of each label, in which the probe of label 1 has the higher log-odds of
    label 1; ties count 0.5. Unlike the success rate, it needs no threshold. On representations unlike the victim's the
    predictor may give all probes one label, and then the success rate is 0.5 for every encoder.

    Raises:
        NotApplicable: if the claim has no watermark, or all rotated probes have the same label.
    """
    logits, labels = watermark_logits(suspect, context)
    watermarked = labels == 1
    ones = int(watermarked.sum())
    if not 0 < ones < len(labels):
        raise NotApplicable("all watermark probes have the same label")
    ranks = rankdata(logits[:, 1].astype(np.float64) - logits[:, 0])
    wins = float(ranks[watermarked].sum()) - ones * (ones + 1) / 2
    return _clipped(wins / (ones * (len(labels) - ones)), len(labels))


def watermark_probability(suspect: Responses, context: ScoringContext) -> float:
    """Return a lower bound of the mean probability of the true label: mean - 3 standard errors (docs/adr/0023).

    The mean over the probes of each label is averaged over the two labels, so that a predictor that gives every probe
    the same probabilities scores at most 0.5. A predictor that is confident and right half of the time may deviate
    from 0.5 by chance; the standard error accounts for that.

    Raises:
        NotApplicable: if the claim has no watermark, or a label has fewer than two probes.
    """
    logits, labels = watermark_logits(suspect, context)
    return _clipped(mean_true_probability(logits, labels), len(labels))


def mean_true_probability(
    logits: NDArray[np.float32], labels: NDArray[np.int64], errors: float = STANDARD_ERRORS
) -> float:
    """Return the mean probability of the true class, averaged over the two classes, minus `errors` standard errors.

    Args:
        logits: `(n, 2)`.
        labels: `(n,)`, 0 or 1.
        errors: standard errors to subtract.
    """
    given = softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    halves = [given[labels == k] for k in (0, 1)]
    if min(map(len, halves)) < 2:
        raise NotApplicable("almost all watermark probes have the same label")
    error = math.sqrt(sum(float(h.var(ddof=1)) / len(h) for h in halves)) / 2
    return sum(float(h.mean()) for h in halves) / 2 - errors * error


def watermark_success(suspect: Responses, context: ScoringContext) -> float:
    """Return the watermark success rate: the predictor's accuracy on the rotated probes (paper, section 5.1)."""
    return _rate(watermark_hits(suspect, context))


def watermark_aligned(suspect: Responses, context: ScoringContext) -> float:
    """Return the watermark success rate after a ridge map from suspect to victim, fitted on the unrotated probes."""
    weights, intercept = ridge_map(suspect.get("public"), context.victim.get("public"), context.plan.ridge_penalty)
    sets = {name: (suspect.get(name) @ weights + intercept).astype(np.float32) for name in ("public", "watermark")}
    return _rate(watermark_hits(Responses(suspect.name, sets), context))
