"""The test of the keyed watermark: an exact p-value for every suspect that is independent of the key.

H0: the suspect does not depend on the frames of the key. H1: it predicts the marked directions better.
Unit: the key. Assumptions: the frames were drawn at random, after everything else that the score is computed from was
fixed or independently of it. Nothing is assumed about the suspect (docs/explanation/keyed-watermark.md has the proof).

The score of a frame W is the share of the variance of `features @ W` that the suspect's representations predict. Given
features and suspect it is tr(W' E W) / tr(W' W) for one symmetric matrix E, and a frame of independent normal numbers
has the same distribution in every basis. In that of E's eigenvectors a decoy is D chi-square numbers, so a hundred
thousand decoys cost less than a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from ownership.keyed.regression import cross_fitted

Array = NDArray[np.float64]

BINS = 60
"""Bins of the histogram of the decoys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapScore:
    """The score of one map.

    Attributes:
        score: share of the variance of the marked directions that is predicted, cross-fitted (R squared); less that of
            the references, if there are any.
        mean: its expectation over frames.
        sd: its standard deviation over frames.
    """

    score: float
    mean: float
    sd: float

    @property
    def z(self) -> float:
        """Return (score - mean) / sd; descriptive, the p-value does not use a normal tail."""
        return (self.score - self.mean) / self.sd if self.sd > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTestResult:
    """Result of `key_test`.

    Attributes:
        maps: name of a map -> its score.
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
class Explained:
    """How well each direction of a map is predicted: the matrix E of the scores.

    Attributes:
        matrix: `(D, D)` symmetric.
    """

    matrix: Array

    def minus(self, others: Sequence[Explained]) -> Explained:
        """Return the matrix less the mean of the references' matrices; itself without references."""
        if not others:
            return self
        return Explained(self.matrix - np.mean([o.matrix for o in others], axis=0))


def explained(representations: Array, features: Mapping[str, Array]) -> dict[str, Explained]:
    """Return the matrix E of each map for one encoder.

    With features y, whitened anew on these probes, and their cross-fitted predictions p, E = (2 p'y - p'p) / n: the
    score of a direction w is 1 - |yw - pw|^2 / |yw|^2.

    Args:
        representations: `(n, d)` of the probes.
        features: name of a map -> features of the probes, `(n, D)`, uncorrelated and of variance 1.

    Returns:
        Name of a map -> its matrix.
    """
    names, out, at = list(features), {}, 0
    stacked = np.concatenate([features[name] for name in names], axis=1)
    stacked = stacked - stacked.mean(0)
    predicted = cross_fitted(representations, stacked)
    for name in names:
        width = features[name].shape[1]
        y, p = stacked[:, at : at + width], predicted[:, at : at + width]
        cross = (2 * p.T @ y - p.T @ p) / len(y)
        out[name] = Explained((cross + cross.T) / 2)
        at += width
    return out


def key_test(
    suspect: Mapping[str, Explained],
    frames: Mapping[str, Array],
    random: RandomState,
    *,
    references: Sequence[Mapping[str, Explained]] = (),
    decoys: int = 99_999,
) -> KeyTestResult:
    """Rank the key among keys drawn anew, by how well the suspect predicts the marked directions of all maps.

    Per map the score is standardized by its expectation and standard deviation over frames; the statistic is the sum of
    the squared positive parts. It is one statistic with one rank, so several maps need no correction.

    Args:
        suspect: the suspect's matrices (`explained`).
        frames: name of a map -> the key's frame, `(D, r)`, independent standard normal numbers.
        random: stream that the decoys are drawn from, independent of the key's frames.
        references: matrices of encoders that were made without the key. Their mean is subtracted for the key and the
            decoys alike, which leaves p exact and takes out what any encoder reads.
        decoys: number N of keys drawn anew; p is at least 1 / (N + 1).

    References:
        [1] Phipson and Smyth, Permutation p-values should never be zero, 2010.
        [2] `scipy.stats.monte_carlo_test`, which computes the same p-value from the same draws.
    """
    total, drawn, maps = 0.0, np.zeros(decoys), {}
    for name, frame in frames.items():
        matrix = suspect[name].minus([r[name] for r in references]).matrix
        values, vectors = np.linalg.eigh(matrix)
        size, directions = frame.shape
        mean, sd = moments(values, directions)
        weights = ((vectors.T @ frame) ** 2).sum(1)
        maps[name] = MapScore(score=float(weights @ values / weights.sum()), mean=mean, sd=sd)
        total += max(maps[name].z, 0.0) ** 2
        if sd > 0:
            for start in range(0, decoys, 20_000):
                chi = random.chisquare(directions, (min(20_000, decoys - start), size))
                z = (chi @ values / chi.sum(1) - mean) / sd
                drawn[start : start + len(z)] += np.maximum(z, 0) ** 2
    exceeding = int((drawn >= total).sum())
    counts, edges = np.histogram(drawn, bins=BINS)
    return KeyTestResult(
        maps=maps,
        statistic=total,
        pvalue=(1 + exceeding) / (1 + decoys),
        decoys=decoys,
        exceeding=exceeding,
        histogram=tuple(map(int, counts)),
        edges=tuple(map(float, edges)),
    )


def moments(values: Array, directions: int) -> tuple[float, float]:
    """Return expectation and standard deviation of a frame's score, from the eigenvalues of E.

    The shares of the eigenvectors in a random frame are Dirichlet with all parameters r / 2: expectation 1 / D, and
    variance of their weighted sum (mean of squares - square of mean) / (D r / 2 + 1).

    Args:
        values: `(D,)`, the eigenvalues.
        directions: r, columns of a frame.
    """
    mean = float(values.mean())
    spread = max(float((values**2).mean()) - mean**2, 0.0)
    return mean, float(np.sqrt(spread / (len(values) * directions / 2 + 1)))
