"""The losses of watermarked self-supervised training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent_loss(first: Tensor, second: Tensor, temperature: float = 0.07) -> Tensor:
    """Returns the normalised-temperature cross entropy of two batches of projections of the same images.

    For each of the 2 n projections, its partner is the positive and the other 2 n - 2 are negatives.

    Args:
        first: projections of the first views, `(n, d)`, n >= 2.
        second: projections of the second views, `(n, d)`.
        temperature: .07 in the paper.

    References:
        [1] Chen et al., A Simple Framework for Contrastive Learning, ICML 2020, equation 1, Algorithm 1.
    """
    n = len(first)
    z = F.normalize(torch.cat([first, second]).float(), dim=1)  # (2n, d)
    similarity = z @ z.T / temperature  # (2n, 2n)
    similarity.fill_diagonal_(float("-inf"))
    partner = (torch.arange(2 * n, device=z.device) + n) % (2 * n)
    return F.cross_entropy(similarity, partner)
