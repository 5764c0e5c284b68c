"""What representations are worth to an attacker: three classifiers on frozen representations."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize
from torch import Tensor

from attacks_for_eval.evaluation.linear import linear_evaluation
from ownership.encoders.images import EncoderLike, represent
from ownership.keyed.regression import cross_fitted

NEIGHBOURS = 20
COMPONENTS = 32
FEW = 10
"""Labels a class of the classifier on few labels."""

Labeled = tuple[Tensor, Tensor]
"""Images `(n, c, h, w)` uint8, labels `(n,)`."""


def utilities(encoder: EncoderLike, learn: Labeled, test: Labeled) -> dict[str, float]:
    """Return the accuracy of a linear classifier, of the nearest neighbours, and of a linear one on few labels."""
    x, new = (represent(encoder, images).double().numpy() for images, _ in (learn, test))
    neighbours = KNeighborsClassifier(NEIGHBOURS).fit(_directions(x, x), learn[1].numpy())
    few = torch.cat([(learn[1] == label).nonzero()[:FEW, 0] for label in set(learn[1].tolist())])
    return {
        "linear": linear_evaluation(encoder, learn, test).accuracy,
        "knn": float(neighbours.score(_directions(new, x), test[1].numpy())),
        "few": linear_evaluation(encoder, (learn[0][few], learn[1][few]), test).accuracy,
    }


def victim_share(encoder: Tensor, victim: Tensor) -> float:
    """Return how much of the victim an encoder has: the share of the variance of its white components that it predicts.

    Cross-fitted regression, of the victim's 32 leading principal components, each scaled to variance 1. Independent
    encoders predict a good part: this is what a surrogate has to exceed.

    Args:
        encoder: `(n, d)`, its representations.
        victim: `(n, k)`, the victim's of the same images.
    """
    centred = (victim - victim.mean(0)).double().numpy()
    u, _, _ = np.linalg.svd(centred, full_matrices=False)
    y = u[:, :COMPONENTS] * np.sqrt(len(u))
    left = y - cross_fitted(encoder.double().numpy(), y)
    return float(1 - (left**2).sum() / (y**2).sum())


def _directions(x: NDArray[np.float64], of: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standardized representations of length 1: nearest neighbours by cosine."""
    out: NDArray[np.float64] = normalize((x - of.mean(0)) / (of.std(0) + 1e-9))
    return out
