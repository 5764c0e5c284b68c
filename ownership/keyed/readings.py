"""How an encoder represents the features of a key's maps: symmetric matrices, one for each reading.

With x = U diag(s) V' the singular value decomposition of the centred representations, and y the features of the probes,
reading l fits y by U diag(s / (s + l m)) U' y, m the mean of s. Its matrix M is the covariance of y with the fit, so
w' M w is how much of direction w of the features the representation shows.

- Damping 0 is least squares. It does not change under an invertible linear map of the representation.
- The larger the damping, the more a direction counts that has much of the representation's variance. It finds what a
  copy shows strongly, behind columns that an attacker appends, and where probes are few for so many dimensions.

Predictions on other probes than those of the fit were used before: their covariances carry more noise of the sample
(docs/adr/0039).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DAMPING = (0.0, 0.3, 3.0, 30.0)
"""Damping of each reading, in units of the mean singular value."""
FLOOR = 1e-5
"""Singular values below this multiple of the largest one are left out: constant, duplicate and padded dimensions."""
LONGEST, SHORTEST, WIDEST = 10.0, 0.1, 1000.0
"""Lengths of rows, in units of their median, and spread of the columns, beyond which representations are rescaled."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Readings:
    """How one encoder represents the features of one map.

    Attributes:
        matrices: `(len(DAMPING), D, D)`, the covariance of the features with their fit of each reading.
        fitted: share of the probes' degrees of freedom that the least-squares fit uses up, 0 to 1.
    """

    matrices: Array
    fitted: float

    def less(self, baselines: Sequence[Readings]) -> Iterator[Array]:
        """Yield the matrix of each reading less its baselines (`residual`)."""
        for i, matrix in enumerate(self.matrices):
            yield residual(matrix, [b.matrices[i] for b in baselines])

    def r_squared(self, frame: Array) -> float:
        """Return the adjusted R squared of the least-squares fit of a frame's directions; 0 if nothing is left to fit.

        Args:
            frame: `(D, r)`.
        """
        explained = float(np.einsum("dr,de,er->", frame, self.matrices[0], frame) / (frame**2).sum())
        return 1 - (1 - explained) / (1 - self.fitted) if self.fitted < 1 else 0.0


def readings(representations: Array, features: Mapping[str, Array]) -> dict[str, Readings]:
    """Return the readings of each map for one encoder.

    Args:
        representations: `(n, d)` of the probes.
        features: name of a map -> features of the probes, `(n, D)`, uncorrelated and of variance 1.

    Returns:
        Name of a map -> its readings.
    """
    u, s, _ = np.linalg.svd(representations - representations.mean(0), full_matrices=False)
    kept = s > FLOOR * s[0] if s.size and s[0] > 0 else np.zeros(len(s), dtype=bool)
    u, s = u[:, kept], s[kept]
    n = len(representations)
    damped = [s / (s + damping * s.mean()) for damping in DAMPING] if s.size else [s for _ in DAMPING]
    found = {}
    for name, y in features.items():
        onto = (y - y.mean(0)).T @ u
        matrices = np.stack([(onto * factor) @ onto.T / n for factor in damped])
        found[name] = Readings(matrices=matrices, fitted=min(1.0, len(s) / (n - 1)))
    return found


def encoder_readings(representations: Array, features: Mapping[str, Array]) -> dict[str, Readings]:
    """Return the readings of an encoder that may be hostile: of very uneven scale, it is rescaled first (`regular`)."""
    return readings(regular(representations), features)


def residual(matrix: Array, baselines: Sequence[Array]) -> Array:
    """Return a matrix less its regression on the baselines' matrices; itself without baselines.

    Least squares over all entries, with the identity as a further regressor, which only shifts every score. The
    coefficients depend on the matrices alone, so the key and the decoys are treated alike.
    """
    if not baselines:
        return matrix
    parts = np.stack([b.ravel() for b in baselines], axis=1)
    regressors = np.c_[parts, np.eye(len(matrix)).ravel()]
    slope = np.linalg.lstsq(regressors, matrix.ravel(), rcond=None)[0][:-1]
    out: Array = matrix - (parts @ slope).reshape(matrix.shape)
    return out


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
