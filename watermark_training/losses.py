"""The losses of watermarked self-supervised training."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent_loss(first: Tensor, second: Tensor, temperature: float = 0.07) -> Tensor:
    """Return the normalized-temperature cross-entropy of two batches of projections of the same images.

    For each of the 2 n projections, its partner is the positive and the other 2 n - 2 are negatives.

    Args:
        first: projections of the first views, `(n, d)`, n >= 2.
        second: projections of the second views, `(n, d)`.
        temperature: 0.07 in the paper.

    References:
        [1] Chen et al., A Simple Framework for Contrastive Learning, ICML 2020, equation 1, Algorithm 1.
    """
    n = len(first)
    z = F.normalize(torch.cat([first, second]).float(), dim=1)  # (2n, d)
    similarity = z @ z.T / temperature  # (2n, 2n)
    similarity.fill_diagonal_(float("-inf"))
    partner = (torch.arange(2 * n, device=z.device) + n) % (2 * n)
    return F.cross_entropy(similarity, partner)


def barlow_loss(first: Tensor, second: Tensor, redundancy: float = 0.0051) -> Tensor:
    """Return the Barlow Twins loss of two batches `(n, d)` of the same images: cross-correlation pulled to identity.

    C = a^T b / n of the batches standardized over images; sum (1 - C_ii)^2 + redundancy sum_{i != j} C_ij^2.

    References:
        [1] Zbontar et al., Barlow Twins, ICML 2021, equation 1 (lambda = 0.0051).
    """
    a, b = ((x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt() for x in (first.float(), second.float()))
    c = a.T @ b / len(a)
    diagonal = torch.diagonal(c)
    return (1 - diagonal).square().sum() + redundancy * (c.square().sum() - diagonal.square().sum())


def simsiam_loss(first: Tensor, second: Tensor, predict: Callable[[Tensor], Tensor]) -> Tensor:
    """Return SimSiam's loss -(cos(h(z1), sg(z2)) + cos(h(z2), sg(z1))) / 2, mean over images.

    Args:
        first: projections z1 of the first views, `(n, d)`.
        second: projections z2 of the second views, `(n, d)`.
        predict: the prediction head h, trained together with the encoder; sg stops the gradient.

    References:
        [1] Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, equations 1 to 4.
    """
    forth = F.cosine_similarity(predict(first).float(), second.detach().float(), dim=1).mean()
    back = F.cosine_similarity(predict(second).float(), first.detach().float(), dim=1).mean()
    return -(forth + back) / 2


def feature_preservation_loss(now: Tensor, before: Tensor) -> Tensor:
    """Return how far representations moved, relative to their variance; embedding a watermark keeps this small.

    mean_i ||a_i - b_i||^2 / mean_i ||b_i - mean(b)||^2, the fraction of variance that is lost to a linear head fitted
    before. It is 0 if nothing moved, and 1 at half the mean squared distance between two images' representations.

    Args:
        now: `(n, d)`, n >= 2.
        before: `(n, d)` of the same images, from the original encoder.
    """
    spread = (before - before.mean(0)).square().sum(1).mean().clamp_min(1e-12)
    return (now - before).square().sum(1).mean() / spread
