"""The test of the keyed watermark: an exact p-value for every suspect that is independent of the key.

H0: the suspect does not depend on the frames of the key. H1: the marked directions are easier to read from it.
Unit: the key. Assumptions: the frames were drawn at random, after everything else that the score is computed from was
fixed or independently of it. Nothing is assumed about the suspect (docs/explanation/keyed-watermark.md has the proof).

A map is read in two ways (`readings`). Each gives a symmetric matrix M, and the score of a frame W is tr(W' M W) /
tr(W' W). A frame of independent normal numbers has the same distribution in every basis; in that of M's eigenvectors a
decoy is D chi-square numbers, so a hundred thousand decoys cost less than a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from ownership.keyed.regression import cross_fitted, share_matrix

Array = NDArray[np.float64]
Shares = NDArray[np.float32]

BINS = 60
"""Bins of the histogram of the decoys."""
BATCH = 20_000
"""Decoys that are drawn at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapScore:
    """What one map says about the key.

    Attributes:
        r_squared: share of the variance of the marked directions that the representations predict, cross-fitted.
        z: the score of the key in standard deviations above the expectation over keys, baselines subtracted.
            Descriptive: the p-value uses no normal tail.
    """

    r_squared: float
    z: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTestResult:
    """Result of `key_test`.

    Attributes:
        maps: name of a map -> what it says.
        statistic: sum over the maps of the squared positive part of z.
        pvalue: (1 + exceeding) / (1 + decoys).
        decoys: number of keys drawn anew.
        exceeding: how many of them reach the statistic.
        histogram: number of decoys in each bin of the statistic.
        edges: limits of the bins, one more than bins.
    """

    maps: dict[str, MapScore]
    statistic: float
    pvalue: float
    decoys: int
    exceeding: int
    histogram: tuple[int, ...]
    edges: tuple[float, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Readings:
    """How one encoder represents the features of one map, read in two ways.

    Attributes:
        predicted: `(D, D)` symmetric. The score of a direction w is the R squared of its cross-fitted prediction.
        share: `(D, D)` symmetric. The score of a direction is the share of the representation's variance that it has.
    """

    predicted: Array
    share: Array

    def combined(self, baselines: Sequence[Readings], directions: int) -> Array:
        """Return one matrix of both readings, each less its baselines and scaled to the same spread over keys.

        Args:
            baselines: readings of representations that were made without the key.
            directions: r, columns of a frame.
        """
        out = np.zeros_like(self.predicted)
        for name in ("predicted", "share"):
            left = residual(getattr(self, name), [getattr(b, name) for b in baselines])
            _, sd = moments(np.linalg.eigh(left)[0], directions)
            if sd > 1e-12:
                out += left / sd
        return out


def readings(representations: Array, features: Mapping[str, Array]) -> dict[str, Readings]:
    """Return the readings of each map for one encoder.

    With features y and their cross-fitted predictions p, `predicted` is (2 p'y - p'p) / n; with white features the
    score of a direction w is then 1 - |yw - pw|^2 / |yw|^2.

    Args:
        representations: `(n, d)` of the probes.
        features: name of a map -> features of the probes, `(n, D)`, uncorrelated and of variance 1.

    Returns:
        Name of a map -> its readings.
    """
    names, out, at = list(features), {}, 0
    stacked = np.concatenate([features[name] for name in names], axis=1)
    stacked = stacked - stacked.mean(0)
    predictions = cross_fitted(representations, stacked)
    for name in names:
        width = features[name].shape[1]
        y, p = stacked[:, at : at + width], predictions[:, at : at + width]
        cross = (2 * p.T @ y - p.T @ p) / len(y)
        out[name] = Readings((cross + cross.T) / 2, share_matrix(representations, y))
        at += width
    return out


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


def decoy_shares(random: RandomState, size: int, directions: int, decoys: int) -> Iterator[Shares]:
    """Yield keys drawn anew as what a score needs of them: the share of each eigenvector of any matrix in the frame.

    In the basis of the eigenvectors a frame is D x r independent normal numbers, whatever the matrix is, so the shares
    serve every suspect.

    Args:
        random: stream that they are drawn from, independent of the key's frames.
        size: D.
        directions: r.
        decoys: number of keys.

    Returns:
        Arrays `(at most 20,000, D)` float32, rows that sum to 1.
    """
    for start in range(0, decoys, BATCH):
        chi = random.chisquare(directions, (min(BATCH, decoys - start), size))
        yield (chi / chi.sum(1, keepdims=True)).astype(np.float32)


def key_test(
    suspect: Mapping[str, Readings],
    frames: Mapping[str, Array],
    decoys: Mapping[str, Iterable[Shares]],
    *,
    baselines: Sequence[Mapping[str, Readings]] = (),
) -> KeyTestResult:
    """Rank the key among keys drawn anew, by how easily the marked directions of all maps are read from the suspect.

    Per map the score is standardized by its expectation and standard deviation over frames; the statistic is the sum of
    the squared positive parts. It is one statistic with one rank, so several maps and readings need no correction.

    Args:
        suspect: name of a map -> the suspect's readings (`readings`).
        frames: name of a map -> the key's frame, `(D, r)`, independent standard normal numbers.
        decoys: name of a map -> N keys drawn anew (`decoy_shares`), as many for each map; p is at least 1 / (N + 1).
        baselines: readings of representations that were made without the key. What they explain of the suspect's is
            subtracted (`residual`), which leaves p exact and takes out what can be read from any encoder.

    References:
        [1] Phipson and Smyth, Permutation p-values should never be zero, 2010.
        [2] `scipy.stats.monte_carlo_test`, which computes the same p-value from the same draws.
    """
    total, maps = 0.0, {}
    drawn: Array | float = 0.0
    for name, frame in frames.items():
        directions = frame.shape[1]
        matrix = suspect[name].combined([b[name] for b in baselines], directions)
        values, vectors = np.linalg.eigh(matrix)
        mean, sd = moments(values, directions)
        scores, z = np.concatenate([shares @ values for shares in decoys[name]]), 0.0
        if sd > 1e-12:
            weights = ((vectors.T @ frame) ** 2).sum(1)
            z = float((weights @ values / weights.sum() - mean) / sd)
            drawn = drawn + np.maximum((scores - mean) / sd, 0) ** 2
        else:  # nothing can be read from a constant
            drawn = drawn + np.zeros(len(scores))
        maps[name] = MapScore(r_squared=score(suspect[name].predicted, frame), z=z)
        total += max(z, 0.0) ** 2
    drawn = np.asarray(drawn)
    exceeding = int((drawn >= total).sum())
    counts, edges = np.histogram(drawn, bins=BINS)
    return KeyTestResult(
        maps=maps,
        statistic=total,
        pvalue=(1 + exceeding) / (1 + len(drawn)),
        decoys=len(drawn),
        exceeding=exceeding,
        histogram=tuple(map(int, counts)),
        edges=tuple(map(float, edges)),
    )


def score(matrix: Array, frame: Array) -> float:
    """Return the score of a frame `(D, r)`: tr(W' M W) / tr(W' W)."""
    return float(np.einsum("dr,de,er->", frame, matrix, frame) / (frame**2).sum())


def moments(values: Array, directions: int) -> tuple[float, float]:
    """Return expectation and standard deviation of a frame's score, from the eigenvalues of its matrix.

    The shares of the eigenvectors in a random frame are Dirichlet with all parameters r / 2: expectation 1 / D, and
    variance of their weighted sum (mean of squares - square of mean) / (D r / 2 + 1).

    Args:
        values: `(D,)`, the eigenvalues.
        directions: r, columns of a frame.
    """
    mean = float(values.mean())
    spread = max(float((values**2).mean()) - mean**2, 0.0)
    return mean, float(np.sqrt(spread / (len(values) * directions / 2 + 1)))
