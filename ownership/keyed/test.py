"""The test of the keyed watermark: an exact p-value for every suspect that is independent of the key.

H0: the suspect does not depend on the frames of the key. H1: the marked directions are easier to read from it.
Unit: the key. Assumptions: the frames were drawn at random, after everything else that the score is computed from was
fixed or independently of it. Nothing is assumed about the suspect (docs/explanation/keyed-watermark.md has the proof).

A map is read in two ways (`readings`). Each gives a symmetric matrix M, and the score of a frame W is tr(W' M W) /
tr(W' W). The two scores of one frame depend on each other, so decoys are frames, drawn once and used for every suspect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from ownership.keyed.regression import cross_fitted, regular, share_matrix

Array = NDArray[np.float64]
Frames = NDArray[np.float32]
"""Frames of keys drawn anew: rows of r x D numbers each, `(keys, r, D)`."""

BINS = 60
"""Bins of the histogram of the decoys."""
BATCH = 1_300_000
"""Numbers of decoys that are drawn at once: 5,000 decoys of 4 directions."""
LEAST_SPREAD = 1e-12
"""Standard deviation of a score over keys from which on it counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapScore:
    """What one map says about the key.

    Attributes:
        r_squared: share of the variance of the marked directions that the representations predict, cross-fitted.
        z: the score of the key in standard deviations above the expectation over keys, baselines subtracted; of the
            two readings the larger one. Descriptive: the p-value uses no normal tail.
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

    def less(self, baselines: Sequence[Readings]) -> Iterator[Array]:
        """Yield the matrix of each reading less its baselines (`residual`)."""
        for name in ("predicted", "share"):
            yield residual(getattr(self, name), [getattr(b, name) for b in baselines])


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


def decoy_frames(random: RandomState, size: int, directions: int, decoys: int) -> Iterator[Frames]:
    """Yield the frames of keys drawn anew: independent standard normal numbers, as the key's.

    Args:
        random: stream that they are drawn from, independent of the key's frames.
        size: D.
        directions: r.
        decoys: number of keys.

    Returns:
        Arrays `(keys, r, D)` float32.
    """
    batch = max(1, BATCH // (directions * size))
    for start in range(0, decoys, batch):
        shape = (min(batch, decoys - start), directions, size)
        yield random.standard_normal(shape).astype(np.float32)


def key_test(
    suspect: Mapping[str, Readings],
    frames: Mapping[str, Array],
    decoys: Mapping[str, Iterable[Frames]],
    *,
    baselines: Sequence[Mapping[str, Readings]] = (),
) -> KeyTestResult:
    """Rank the key among keys drawn anew, by how easily the marked directions of all maps are read from the suspect.

    The score of each reading is standardized by its expectation and standard deviation over frames. Of a map the larger
    reading counts: a transform of the representation that hides the one often leaves the other. The statistic is the
    sum over the maps of the squared positive parts. It is one statistic with one rank, so several maps and readings
    need no correction.

    Args:
        suspect: name of a map -> the suspect's readings (`readings`).
        frames: name of a map -> the key's frame, `(D, r)`, independent standard normal numbers.
        decoys: name of a map -> N keys drawn anew (`decoy_frames`), as many for each map; p is at least 1 / (N + 1).
        baselines: readings of representations that were made without the key. What they explain of the suspect's is
            subtracted (`residual`), which leaves p exact and takes out what can be read from any encoder.

    References:
        [1] Phipson and Smyth, Permutation p-values should never be zero, 2010.
        [2] `scipy.stats.monte_carlo_test`, which computes the same p-value from the same draws.
    """
    total, maps = 0.0, {}
    drawn: Array | float = 0.0
    for name, frame in frames.items():
        matrices = list(suspect[name].less([b[name] for b in baselines]))
        own = np.ascontiguousarray(frame.T, dtype=np.float32)[None]  # in the arithmetic of the decoys
        z = float(largest_z(matrices, own)[0])
        drawn = drawn + np.maximum(np.concatenate([largest_z(matrices, part) for part in decoys[name]]), 0) ** 2
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


def largest_z(matrices: Iterable[Array], frames: Frames) -> Array:
    """Return the largest standardized score of each frame over the matrices, `(keys,)`; 0 where all frames score alike.

    Args:
        matrices: `(D, D)` symmetric, one for each reading.
        frames: `(keys, r, D)`.
    """
    rows = frames.reshape(-1, frames.shape[2])
    squares = np.einsum("krd,krd->k", frames, frames).astype(np.float64)
    out = []
    for matrix in matrices:
        mean, sd = moments(np.linalg.eigh(matrix)[0], frames.shape[1])
        scaled = ((matrix - mean * np.eye(len(matrix))) / max(sd, LEAST_SPREAD)).astype(np.float32)
        scores = np.einsum("ij,ij->i", rows @ scaled, rows).reshape(len(frames), -1).sum(1)
        out.append(scores / squares if sd > LEAST_SPREAD else np.zeros(len(frames)))  # a constant cannot be read
    best: Array = np.max(out, axis=0)
    return best


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
