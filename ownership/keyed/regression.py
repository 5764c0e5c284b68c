"""Cross-fitted ridge regression, for the test of twins.

It gives the same predictions for representations that differ by an invertible linear map (its whitened candidates do
exactly, up to rounding).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ownership.keyed.readings import FLOOR

Array = NDArray[np.float64]

FOLDS = 4
RAW = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Ridge penalties of the candidates on the given scale, in units of the mean squared singular value."""
HALF = (0.03, 0.1, 0.3, 1.0)
"""Ridge penalties of the candidates between the two: singular values are replaced by their roots."""
WHITE = (0.0, 0.1, 0.3, 1.0, 3.0)
"""Ridge penalties of the candidates on whitened representations, in units of their variance."""


def cross_fitted(x: Array, y: Array) -> Array:
    """Return predictions of y from x, each fold's from the other folds, `(n, D)`, with mean 0.

    Of the candidates (scale and penalty), the one with the least squared error over *all* columns of y is used, so the
    choice does not depend on the key.

    Args:
        x: representations, `(n, d)`.
        y: features, `(n, D)`, with mean 0.
    """
    fold = np.arange(len(x)) % FOLDS  # the key draws the probes in random order
    out = np.zeros((len(RAW) + len(HALF) + len(WHITE), *y.shape))
    for k in range(FOLDS):
        test = fold == k
        out[:, test] = _candidates(x[~test], y[~test], x[test])
    out -= out.mean(1, keepdims=True)
    best: Array = min(out, key=lambda predicted: float(((y - predicted) ** 2).sum()))
    return best


def _candidates(x: Array, y: Array, new: Array) -> Array:
    """Return the predictions of every candidate for new rows, without intercept, `(candidates, m, D)`."""
    mean_x = x.mean(0)
    u, s, vt = np.linalg.svd(x - mean_x, full_matrices=False)
    kept = s > FLOOR * s[0] if s.size and s[0] > 0 else np.zeros(len(s), dtype=bool)
    u, s, vt = u[:, kept], s[kept], vt[kept]
    onto, scores = u.T @ (y - y.mean(0)), (new - mean_x) @ vt.T
    scale = (s**2).mean() if s.size else 1.0
    raw = [(scores * (s / (s**2 + penalty * scale))) @ onto for penalty in RAW]
    half = [(scores / (s + penalty * (s.mean() if s.size else 1.0))) @ onto for penalty in HALF]
    white = (scores / s) @ onto
    return np.stack([*raw, *half, *(white / (1 + penalty) for penalty in WHITE)])
