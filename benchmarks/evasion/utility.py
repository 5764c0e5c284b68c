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

NEIGHBOURS = 20
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


def _directions(x: NDArray[np.float64], of: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standardized representations of length 1: nearest neighbours by cosine."""
    out: NDArray[np.float64] = normalize((x - of.mean(0)) / (of.std(0) + 1e-9))
    return out
