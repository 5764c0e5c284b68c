"""Watermark statistics: how well the owner's rotation predictor reads an encoder's representations."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import rankdata

from ownership.evidence.responses import NotApplicable, Responses, ScoringContext
from ownership.evidence.similarity import (
    ridge_map,
)

STANDARD_ERRORS = 3
"""Standard errors that `watermark_probability` takes off: chance alone goes that far in one of 740 suspects."""


def watermark_hits(responses: Responses, context: ScoringContext) -> NDArray[np.bool_]:
    """Returns for each rotated probe whether the owner's predictor reads its label from these answers, `(2 w,)`."""
    logits, labels = watermark_logits(responses, context)
    hits: NDArray[np.bool_] = logits.argmax(1) == labels
    return hits


def watermark_logits(responses: Responses, context: ScoringContext) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The predictor's logits of these answers, `(2 w, 2)`, and the true labels."""
    if context.predictor is None or context.watermark_labels is None:
        raise NotApplicable("the claim has no watermark predictor")
    read = responses.get("watermark")
    if read.shape[1] != context.victim.dim:
        raise NotApplicable(f"representations have {read.shape[1]} numbers, the victim's {context.victim.dim}")
    if context.predictor.pairs:
        if context.watermark_images is None:
            raise NotApplicable("the claim does not say which images its rotated probes show")
        read = np.concatenate([read, responses.get("public")[context.watermark_images]], axis=1)
    with torch.inference_mode():
        logits = context.predictor(torch.from_numpy(read.astype(np.float32)))
    return logits.numpy(), context.watermark_labels


def _rate(hits: NDArray[np.bool_]) -> float:
    """Share of hits, with a finite logit."""
    return _inside(float(hits.mean()), len(hits))


def _inside(rate: float, n: int) -> float:
    """A rate kept half a probe away from 0 and 1, so that its logit is finite."""
    return min(max(rate, 0.5 / n), 1 - 0.5 / n)


def watermark_auc(suspect: Responses, context: ScoringContext) -> float:
    """Area under the ROC curve of the predictor's log-odds on the suspect's raw representations (docs/adr/0019).

    The share of pairs of rotated probes, one of each label, in which the predictor finds label 1 likelier for the one
    that has it; ties count half. Unlike the success rate it needs no threshold, which answers unlike the victim's
    miss: then every probe gets the same label, and exactly half are hits whoever is asked.
    """
    logits, labels = watermark_logits(suspect, context)
    watermarked = labels == 1
    ones = int(watermarked.sum())
    if not 0 < ones < len(labels):
        raise NotApplicable("all watermark probes have the same label")
    ranks = rankdata(logits[:, 1].astype(np.float64) - logits[:, 0])
    wins = float(ranks[watermarked].sum()) - ones * (ones + 1) / 2
    return _inside(wins / (ones * (len(labels) - ones)), len(labels))


def watermark_probability(suspect: Responses, context: ScoringContext) -> float:
    """Mean probability that the predictor gives to the true label, less three standard errors (docs/adr/0023).

    The mean over the probes of each label, averaged over the two labels: a predictor that says the same of every probe
    is at one half, however sure. One that leans the right way, but faintly, stays close to it; one that is sure of
    everything and right half the time may be off by chance, and has a standard error that says so.
    """
    logits, labels = watermark_logits(suspect, context)
    return _inside(certainty(logits, labels), len(labels))


def certainty(logits: NDArray[np.float32], labels: NDArray[np.int64], errors: float = STANDARD_ERRORS) -> float:
    """Returns the mean probability of the true labels `(n,)` by logits `(n, 2)`, less so many standard errors."""
    given = softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    halves = [given[labels == k] for k in (0, 1)]
    if min(map(len, halves)) < 2:
        raise NotApplicable("almost all watermark probes have the same label")
    error = math.sqrt(sum(float(h.var(ddof=1)) / len(h) for h in halves)) / 2
    return sum(float(h.mean()) for h in halves) / 2 - errors * error


def watermark_success(suspect: Responses, context: ScoringContext) -> float:
    """Watermark success rate of the owner's predictor on the suspect's raw representations (paper, section 5.1)."""
    return _rate(watermark_hits(suspect, context))


def watermark_aligned(suspect: Responses, context: ScoringContext) -> float:
    """The same after a ridge map suspect -> victim fitted on the unrotated public probes."""
    weights, intercept = ridge_map(suspect.get("public"), context.victim.get("public"), context.plan.ridge_penalty)
    sets = {name: (suspect.get(name) @ weights + intercept).astype(np.float32) for name in ("public", "watermark")}
    return _rate(watermark_hits(Responses(suspect.name, sets), context))
