"""What representations are worth to an attacker: three classifiers on frozen representations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from torch import Tensor

from ownership.encoders.images import EncoderLike, represent

NEIGHBOURS = 20
FEW = 10
"""Labels a class of the classifier on few labels."""

Labeled = tuple[Tensor, Tensor]
"""Images `(n, c, h, w)` uint8, labels `(n,)`."""


def utilities(encoder: EncoderLike, learn: Labeled, test: Labeled) -> dict[str, float]:
    """Return the accuracy of a linear classifier, of the nearest neighbours, and of a linear one on few labels."""
    x, new = (represent(encoder, images).double().numpy() for images, _ in (learn, test))
    y, truth = learn[1].numpy(), test[1].numpy()
    few = np.concatenate([np.flatnonzero(y == label)[:FEW] for label in np.unique(y)])
    return {
        "linear": _linear(x, y, new, truth),
        "knn": float(KNeighborsClassifier(NEIGHBOURS).fit(_white(x, x), y).score(_white(new, x), truth)),
        "few": _linear(x[few], y[few], new, truth),
    }


def _linear(x: NDArray[np.float64], y: NDArray[np.int64], new: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(x, y)
    return float(model.score(new, truth))


def _white(x: NDArray[np.float64], of: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standardized representations of length 1: nearest neighbours by cosine."""
    out: NDArray[np.float64] = normalize((x - of.mean(0)) / (of.std(0) + 1e-9))
    return out
