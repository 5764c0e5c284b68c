"""Losses of extraction (paper, section 3.3, and later work) between a surrogate's and a victim's representations.

Each takes `surrogate` `(n, d)` and `victim` `(n, d)`, the representations of the same n images, and returns a scalar.
`supcon` also takes labels, `symmetrized` a prediction head; `LABELED` and `HEADED` name them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from watermark_training.losses import barlow_loss, nt_xent_loss


def mse_loss(surrogate: Tensor, victim: Tensor) -> Tensor:
    """Return the mean squared difference over images and dimensions (paper, section 3.3, quadratic loss)."""
    return F.mse_loss(surrogate, victim)


def unit_l2_loss(surrogate: Tensor, victim: Tensor) -> Tensor:
    """Return the mean l2 distance of the representations scaled to length 1 (StolenEncoder's distance).

    References:
        [1] Liu et al., StolenEncoder: Stealing Pre-trained Encoders in Self-supervised Learning, CCS 2022, section 4.2;
            its released code normalizes first.
    """
    return (F.normalize(surrogate, dim=1) - F.normalize(victim, dim=1)).square().sum(1).sqrt().mean()


def infonce_loss(surrogate: Tensor, victim: Tensor, temperature: float = 0.07) -> Tensor:
    """Return InfoNCE over the 2 n representations of both encoders.

    All 2 n rows are anchors: an image's two representations are positives, the other 2 n - 2 rows negatives, as in the
    paper's released code; cosine similarity.

    References:
        [1] van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018, equation 4.
    """
    return nt_xent_loss(surrogate, victim, temperature)


def soft_nn_loss(surrogate: Tensor, victim: Tensor, temperature: float = 100.0) -> Tensor:
    """Return the soft nearest neighbour loss over the 2 n representations, the image being the class.

    Mean over rows of -log of the fraction of exp(-|a - b|^2 / T) that belongs to the same image's other representation.
    T = 100 as in the released code, because the squared distances are large.

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


def wasserstein_loss(surrogate: Tensor, victim: Tensor) -> Tensor:
    """Return the 1-Wasserstein distance of representations read as histograms over the feature index.

    Each row is divided by its sum; the distance of two histograms on a line is the l1 distance of their cumulative
    sums (divided by d here). As in the released code, it depends on the order of the features and assumes non-negative
    representations (after a ReLU); negative values are set to zero.
    """
    a, b = (x.clamp_min(0) / x.clamp_min(0).sum(1, keepdim=True).clamp_min(1e-9) for x in (surrogate, victim))
    return (a.cumsum(1) - b.cumsum(1)).abs().mean()


def supcon_loss(surrogate: Tensor, victim: Tensor, labels: Tensor, temperature: float = 0.07) -> Tensor:
    """Return the supervised contrastive loss over the 2 n representations of both encoders.

    Every row with the anchor's label is a positive; rows are l2-normalized; mean over positives of the log fraction.

    Args:
        surrogate: `(n, d)`.
        victim: `(n, d)`.
        labels: `(n,)` integers: the attacker has a labeled public data set (paper, section 3.3).
        temperature: 0.07, as in the released code.

    References:
        [1] Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2.
    """
    z = F.normalize(torch.cat([surrogate, victim]), dim=1)
    similarity = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_share = similarity - similarity.masked_fill(itself, float("-inf")).logsumexp(1, keepdim=True)
    both = torch.cat([labels, labels])
    positive = (both[:, None] == both[None, :]) & ~itself
    return -((log_share * positive).sum(1) / positive.sum(1)).mean()


def symmetrized_loss(surrogate: Tensor, victim: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Return SimSiam's symmetrized negative cosine: -(cos(h(s), v) + cos(h(v), s)) / 2.

    Args:
        surrogate: `(n, d)`.
        victim: `(n, d)`, no gradient.
        head: the prediction head h, trained together with the surrogate.

    References:
        [1] Chen and He, Exploring Simple Siamese Representation Learning, 2020, equation 2; the paper, section 3.3.
    """
    forth = F.cosine_similarity(head(surrogate), victim, dim=1).mean()
    back = F.cosine_similarity(head(victim), surrogate, dim=1).mean()
    return -(forth + back) / 2


def rda_loss(surrogate: Tensor, victim: Tensor, temperature: float = 0.07) -> Tensor:
    """Return the loss of RDA: InfoNCE against prototypes, and a term of angle and distance.

    Negatives of an image are the prototypes and the surrogate's representations of the other images. The second term is
    -log((cos + 1) / |x - y|^2), of vectors of length 1.

    Args:
        surrogate: `(n, d)`, of views.
        victim: `(n, d)`, the images' prototypes.
        temperature: of InfoNCE.

    References:
        [1] Wu et al., Refine, Discriminate and Align: Stealing Encoders via Sample-Wise Prototypes and Multi-Relational
            Extraction, ECCV 2024, section 4.
    """
    x, y = F.normalize(surrogate, dim=1), F.normalize(victim, dim=1)
    among = (x @ x.T / temperature).fill_diagonal_(float("-inf"))
    logits = torch.cat([x @ y.T / temperature, among], 1)
    cosine = (x * y).sum(1)
    align = -torch.log((cosine + 1).clamp_min(1e-6) / (2 - 2 * cosine).clamp_min(1e-6))
    return F.cross_entropy(logits, torch.arange(len(x), device=x.device)) + align.mean()


LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": mse_loss,
    "unit_l2": unit_l2_loss,
    "infonce": infonce_loss,
    "softnn": soft_nn_loss,
    "wasserstein": wasserstein_loss,
    "supcon": supcon_loss,
    "barlow": barlow_loss,
    "symmetrized": symmetrized_loss,
    "rda": rda_loss,
}
"""Name -> loss(surrogate, victim), with labels for those in `LABELED` and a head for those in `HEADED`."""

LABELED = frozenset({"supcon"})
HEADED = frozenset({"symmetrized"})
REFERENCE_LOSSES = ("mse", "infonce", "softnn")
"""The three losses that the paper recommends; reference surrogates are trained with them."""
