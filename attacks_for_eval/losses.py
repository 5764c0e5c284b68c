"""The losses of direct extraction (paper, section 3.3): what pulls the surrogate's answers to the victim's.

Each takes `surrogate` `(n, d)` and `victim` `(n, d)`, the representations of the same n images, and returns a scalar.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from watermark_training.losses import nt_xent_loss


def mse_loss(surrogate: Tensor, victim: Tensor) -> Tensor:
    """Returns the mean squared difference over images and dimensions (paper, section 3.3, quadratic loss)."""
    return F.mse_loss(surrogate, victim)


def infonce_loss(surrogate: Tensor, victim: Tensor, temperature: float = 0.07) -> Tensor:
    """Returns InfoNCE over the 2 n representations of both encoders.

    All 2 n rows are anchors: an image's two answers are positives, the other 2 n - 2 rows negatives, as in the
    paper's released code; cosine similarity.

    References:
        [1] van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, equation 4.
    """
    return nt_xent_loss(surrogate, victim, temperature)


def soft_nn_loss(surrogate: Tensor, victim: Tensor, temperature: float = 100.0) -> Tensor:
    """Returns the soft nearest neighbour loss over the 2 n representations, the image being the class.

    -log of the share of exp(-|a - b|^2 / T) that falls on the other answer to the same image, mean over rows.
    T = 100 as in the released code: the raw squared distances are large.

    References:
        [1] Frosst et al., Analyzing and Improving Representations with the Soft Nearest Neighbor Loss, ICML 2019,
            equation 1.
    """
    n = len(surrogate)
    z = torch.cat([surrogate, victim])
    squared = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").square()
    weight = -squared / temperature
    weight.fill_diagonal_(float("-inf"))
    partner = (torch.arange(2 * n, device=z.device) + n) % (2 * n)
    return F.cross_entropy(weight, partner)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse_loss,
    "infonce": infonce_loss,
    "softnn": soft_nn_loss,
}
"""Name -> loss(surrogate, victim)."""
