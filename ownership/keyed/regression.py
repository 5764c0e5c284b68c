"""Two ways to read features of the images from a suspect's representations, of any dimension.

- Cross-fitted ridge regression. It gives the same predictions for representations that differ by an invertible linear
  map (its whitened candidates do exactly, up to rounding).
- The share of the representations' variance that a feature has. It finds what a copy shows strongly and an invertible
  map can hide; it needs no regression.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LONGEST, SHORTEST, WIDEST = 10.0, 0.1, 1000.0
"""Lengths of rows, in units of their median, and spread of the columns, beyond which representations are rescaled."""
FOLDS = 4
FLOOR = 1e-5
"""Singular values below this multiple of the largest one are left out: constant, duplicate and padded dimensions."""
SHARE_FLOOR = 1e-3
"""Smallest singular value of the shares of variance, as a multiple of the largest."""
RAW = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Ridge penalties of the candidates on the given scale, in units of the mean squared singular value."""
HALF = (0.03, 0.1, 0.3, 1.0)
"""Ridge penalties of the candidates between the two: singular values are replaced by their roots."""
WHITE = (0.0, 0.1, 0.3, 1.0, 3.0)
"""Ridge penalties of the candidates on whitened representations, in units of their variance."""


def regular(x: Array) -> Array:
    """Return representations of which no few rows or columns hold nearly all of the variance.

    Few large columns push all others below the precision of the regression, and few large rows decide it: a copy behind
    such a scaling would not be found, at no loss for a user who normalizes. Where the longest row (less the columns'
    medians) exceeds 10 median lengths, a twentieth of the rows is below a tenth of it, or the widest column exceeds
    1,000 times the spread that a twentieth of the columns is below, rows are scaled to length 1, then columns to
    standard deviation 1. All others are returned as they are. The rule depends on the representations alone.

    Args:
        x: `(n, d)`.
    """
    centred = x - np.median(x, axis=0)
    lengths = np.linalg.norm(centred, axis=1)
    spread = x.std(0)
    wide = spread[spread > 0]
    usual = float(np.median(lengths))
    if not wide.size or (
        float(lengths.max()) <= LONGEST * usual
        and float(np.quantile(lengths, 0.05)) >= SHORTEST * usual
        and float(wide.max()) <= WIDEST * float(np.quantile(wide, 0.05))
    ):
        return x
    rows = centred / np.where(lengths > 0, lengths, 1)[:, None]
    scale = rows.std(0)
    out: Array = rows / np.where(scale > 0, scale, 1)
    return out


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


def share_matrix(x: Array, y: Array) -> Array:
    """Return the matrix of the shares of variance: w' M w is the share of direction w of white features y.

    Principal components of x are scaled to the square roots of their standard deviations, so that a few large
    directions do not hide the others. With u the components and c = cov(y, u), M = c c' / trace(cov(u)).

    Args:
        x: representations, `(n, d)`.
        y: features, `(n, D)`, with mean 0.
    """
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    if not s.size or not s[0] > 0:
        return np.zeros((y.shape[1], y.shape[1]))
    root = np.sqrt(np.maximum(s, SHARE_FLOOR * s[0]))
    covariance = (y.T @ u) * root / np.sqrt(len(y))
    out: Array = covariance @ covariance.T / (root**2).sum()
    return out
