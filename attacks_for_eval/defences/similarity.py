"""The paper's active defences of a black box (sections 5.2, 5.3; Tables 10 to 15).

Noise on every response is an option of `BlackBox` (`Perturbation`; Tables 10, 11). This module adds noise only to the
responses to queries that resemble earlier ones, and computes the error rates of that distinction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attacks_for_eval.extraction.black_box import BlackBox
from ownership.errors import TrainingError

Metric = Literal["l2", "cosine"]


def nearest(queries: Tensor, history: Tensor, metric: Metric) -> Tensor:
    """Return the distance or similarity of each query to the nearest vector of the history.

    Args:
        queries: `(n, d)`.
        history: `(m, d)`, m >= 1.
        metric: l2 (distance, smaller is nearer) or cosine (similarity, larger is nearer).

    Returns:
        `(n,)`.
    """
    if metric == "l2":
        return torch.cdist(queries, history).min(1).values
    return (F.normalize(queries, dim=1) @ F.normalize(history, dim=1).T).max(1).values


def resembles(queries: Tensor, history: Tensor, metric: Metric, threshold: float) -> Tensor:
    """Return which queries resemble a vector of the history: distance below, or cosine above, the threshold."""
    near = nearest(queries, history, metric)
    return near < threshold if metric == "l2" else near > threshold


def resembles_earlier(queries: Tensor, metric: Metric, threshold: float, *, block: int = 1024) -> Tensor:
    """Return which queries `(n, d)` resemble a query before them."""
    out = torch.zeros(len(queries), dtype=torch.bool)
    for start in range(0, len(queries), block):
        rows = queries[start : start + block]
        if start:
            out[start : start + block] = resembles(rows, queries[:start], metric, threshold)
        if metric == "l2":
            near = torch.cdist(rows, rows) < threshold
        else:
            unit = F.normalize(rows, dim=1)
            near = unit @ unit.T > threshold
        out[start : start + block] |= near.tril(-1).any(1)
    return out


class SimilarityNoiseBlackBox(BlackBox):
    """A black box that adds noise to the responses to queries that resemble earlier ones.

    The paper, section 5.3 and Table 12. Contrastive extraction and head recreation query several views of one image,
    which resemble each other behind the projection head.

    Args:
        encoder: the victim.
        head: its projection head; None compares representations (Table 14: less accurate).
        metric: l2 or cosine.
        threshold: of the metric; the paper's are 13 (l2) and 0.5 (cosine) on projections.
        noise_mean: mean of the noise added to a response (1000 in the paper).
        noise: its standard deviation.
        seed: of the noise.
    """

    def __init__(
        self,
        encoder: Callable[[Tensor], Tensor],
        *,
        head: Callable[[Tensor], Tensor] | None = None,
        metric: Metric = "cosine",
        threshold: float = 0.5,
        noise_mean: float = 1000.0,
        noise: float = 20.0,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder)
        self._head, self._metric, self._threshold = head, metric, threshold
        self._mean, self._sd = noise_mean, noise
        self._drawn = torch.Generator().manual_seed(seed)
        self._history = torch.empty(0, 0)
        self.flagged = 0  # responses with noise so far

    def _respond(self, images: Tensor) -> Tensor:
        """With noise for queries that resemble an earlier one, in the same batch too."""
        responses = super()._respond(images)
        with torch.no_grad():
            z = responses if self._head is None else self._head(responses)
        similar = torch.zeros(len(z), dtype=torch.bool)
        if len(self._history):
            similar = resembles(z, self._history, self._metric, self._threshold)
        similar |= resembles_earlier(z, self._metric, self._threshold)
        self._history = z if not len(self._history) else torch.cat([self._history, z])
        self.flagged += int(similar.sum())
        noise = torch.randn(responses.shape, generator=self._drawn) * self._sd + self._mean
        return torch.where(similar[:, None], responses + noise, responses)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRates:
    """Error rates of the detection of similar queries: mean and standard deviation over batches, in [0, 1]."""

    false_positive: tuple[float, float]  # different images called similar
    false_negative: tuple[float, float]  # two views of one image not called similar


def similarity_error_rates(
    first: Tensor, second: Tensor, metric: Metric, threshold: float, *, batch: int = 64
) -> ErrorRates:
    """Return the error rates of a threshold on pairs (paper, Tables 13 to 15).

    Args:
        first: vectors of one view of each image, `(n, d)`, n >= 2.
        second: vectors of another view of the same images.
        metric: l2 or cosine.
        threshold: as in `resembles`.
        batch: batch size; pairs are formed within batches.
    """
    if len(first) != len(second) or len(first) < 2:
        raise TrainingError("error rates need two views of at least two images")
    positive, negative = [], []
    for a, b in zip(torch.split(first, batch), torch.split(second, batch), strict=True):
        if len(a) < 2:
            continue
        if metric == "l2":
            similar = torch.cdist(a, b) < threshold
        else:
            similar = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T > threshold
        same = torch.eye(len(a), dtype=torch.bool)
        positive.append(float(similar[~same].float().mean()))
        negative.append(float((~similar[same]).float().mean()))
    return ErrorRates(false_positive=_mean_sd(positive), false_negative=_mean_sd(negative))


def _mean_sd(x: list[float]) -> tuple[float, float]:
    return float(np.mean(x)), float(np.std(x, ddof=1)) if len(x) > 1 else 0.0
