"""Similarity of two encoders' representations of the same images. NumPy only; rows are images.

- `raw_l2`: the distance of the paper's Table 18. A permutation of the output dimensions defeats it.
- `linear_cka`: invariant to rotation and scale, but high between independent encoders of one data set.
- `ridge_map`: a linear map from one representation to another, which aligns them before scoring.
- `rsa_vector` and `partial_correlation`, partial RSA: the similarity structure that is specific to the victim, beyond
  what independent encoders share. Invariant to rotation, permutation, scale, padding and dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ownership.keyed.readings import FLOOR

Array = NDArray[np.float64]


def raw_l2(victim: Array, suspect: Array) -> Array:
    """Return the l2 distance between the two representations of each image, `(n,)`.

    Args:
        victim: `(n, d)`.
        suspect: `(n, d)`, the same d.

    References:
        [1] The paper, Table 18 (mean over images; raw representations, not normalised).
    """
    distances: Array = np.linalg.norm(victim - suspect, axis=1)
    return distances


def linear_cka(x: Array, y: Array) -> float:
    """Return linear centred kernel alignment (CKA), in [0, 1]; 0 if either side is constant.

    Args:
        x: `(n, d1)`.
        y: `(n, d2)`.

    References:
        [1] Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019, equation 5.
    """
    x, y = x - x.mean(0), y - y.mean(0)
    norm = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    return float(np.linalg.norm(x.T @ y) ** 2 / norm) if norm > 0 else 0.0


def ridge_map(x: Array, y: Array, penalty: float = 1e-2) -> tuple[Array, Array]:
    """Return the ridge regression from x to y as weights `(d1, d2)` and intercept `(d2,)`.

    Args:
        x: `(n, d1)`, predictors.
        y: `(n, d2)`, targets.
        penalty: ridge penalty, in units of n times the mean variance of x's columns.
    """
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    gram = centred.T @ centred
    strength = penalty * max(float(np.trace(gram)) / len(gram), np.finfo(np.float64).tiny)
    weights = np.linalg.solve(gram + strength * np.eye(len(gram)), centred.T @ (y - mean_y))
    return weights, mean_y - mean_x @ weights


def whiten(x: Array, k: int, shrinkage: float) -> Array:
    """Return the k leading principal components of x, whitened with shrinkage, `(n, min(k, rank))`.

    Column i is `u_i s_i / sqrt(s_i^2 + shrinkage mean(s^2))`, with u, s from the singular value decomposition of
    the centred x and the mean over the kept directions.

    Args:
        x: `(n, d)`.
        k: components to keep.
        shrinkage: in units of the mean squared singular value; 0 whitens fully.

    References:
        [1] docs/statistics.md, "Partial RSA".
    """
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    kept = s[:k] > s[0] * 1e-7 if len(s) and s[0] > 0 else np.zeros(0, bool)
    u, s = u[:, :k][:, kept], s[:k][kept]
    if not len(s):
        return np.zeros((len(x), 0))
    whitened: Array = u * (s / np.sqrt(s**2 + shrinkage * np.mean(s**2)))
    return whitened


def directions(x: Array, count: int | None = None) -> Array:
    """Return the left singular vectors of the centred x, the leading ones first, `(n, at most count)`.

    Args:
        x: `(n, d)`.
        count: how many; all of rank if None.
    """
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    kept = s > FLOOR * s[0] if s.size and s[0] > 0 else np.zeros(len(s), dtype=bool)
    out: Array = u[:, kept][:, :count]
    return out


def rsa_vector(x: Array, k: int = 16, shrinkage: float = 1e-3) -> NDArray[np.float32]:
    """Return the similarity structure of an encoder over n images, `(n (n - 1) / 2,)`, of norm 1.

    It is the upper triangle of the Gram matrix of whitened representations, and depends on neither the basis, the
    scale nor the dimension of the representations.

    Args:
        x: representations, `(n, d)`.
        k: principal components to keep.
        shrinkage: of the whitening (`whiten`).
    """
    w = whiten(x, k, shrinkage)
    gram = w @ w.T
    vector: NDArray[np.float32] = gram[np.triu_indices(len(gram), 1)].astype(np.float32)
    norm = float(np.linalg.norm(vector))
    return vector / np.float32(norm) if norm > 0 else vector


@dataclass(eq=False, slots=True, weakref_slot=True)
class Structure:
    """The centred `rsa_vector` of one encoder, with a cache of its inner products with other structures.

    Every score of every audit needs the products within the panel, so each pair is multiplied once.
    """

    vector: NDArray[np.float32]
    _products: WeakKeyDictionary[Structure, float] = field(default_factory=WeakKeyDictionary, repr=False)

    def __post_init__(self) -> None:
        self.vector = self.vector - self.vector.mean()

    def product(self, other: Structure) -> float:
        """Return the inner product of the two centred vectors, which is their covariance times n (n - 1) / 2."""
        known = self._products.get(other)
        if known is None:
            known = float(self.vector @ other.vector)
            self._products[other] = known
            other._products[self] = known
        return known


def covariance(structures: Sequence[Structure]) -> Array:
    """Return the covariance matrix of structures over the same images, `(m, m)`, up to a common factor."""
    return np.array([[a.product(b) for b in structures] for a in structures])


def partial_correlation(cov: Array, i: int, j: int, given: list[int]) -> float:
    """Return the partial correlation of variables i and j, given other variables.

    Args:
        cov: covariance matrix of all variables.
        i: first variable.
        j: second variable.
        given: variables to control for (indices, without i and j).

    Returns:
        In [-1, 1]; NaN if i or j is a linear function of the others.
    """
    pair = cov[np.ix_([i, j], [i, j])]
    if given:
        cross = cov[np.ix_([i, j], given)]
        inner = cov[np.ix_(given, given)]
        left = pair - cross @ np.linalg.pinv(inner, hermitian=True, rcond=1e-9) @ cross.T
    else:
        left = pair
    if min(left[0, 0] / pair[0, 0], left[1, 1] / pair[1, 1]) < 1e-5:
        return float("nan")
    return float(np.clip(left[0, 1] / np.sqrt(left[0, 0] * left[1, 1]), -1, 1))


def partial_correlations(cov: Array, i: int) -> Array:
    """Return the partial correlations of variable i with each other variable, given all the rest, `(m - 1,)`.

    They are computed from the inverse of the correlation matrix with 1e-6 added to its diagonal, so that two identical
    variables have a correlation near 1 instead of an undefined one.

    Args:
        cov: covariance matrix of all variables, `(m, m)`.
        i: the variable.
    """
    scale = np.sqrt(np.diag(cov))
    precision = np.linalg.inv(cov / np.outer(scale, scale) + 1e-6 * np.eye(len(cov)))
    row = -precision[i] / np.sqrt(precision[i, i] * np.diag(precision))
    out: Array = np.clip(np.delete(row, i), -1, 1)
    return out
