"""The test of the keyed watermark: an exact p-value for every suspect that is independent of the key.

H0: the suspect does not depend on the frames of the key. H1: the marked directions are easier to read from it.
Unit: the key. Assumptions: the frames were drawn at random, after everything else that the score is computed from was
fixed or independently of it. Nothing is assumed about the suspect (docs/explanation/keyed-watermark.md has the proof).

A map is read in several ways (`ownership.keyed.readings`). Each gives a symmetric matrix M, and the score of a frame W
is tr(W' M W) / tr(W' W). The scores of one frame depend on each other, so decoys are frames, drawn once and used for
every suspect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from ownership.keyed.readings import Readings

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
        r_squared: share of the variance of the marked directions that the representations predict, adjusted for their
            number of dimensions.
        z: the score of the key in standard deviations above the expectation over keys, baselines subtracted; of the
            readings the largest one. Descriptive: the p-value uses no normal tail.
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

    The score of each reading is standardized by its expectation and standard deviation over frames. Of a map the
    largest reading counts: a transform of the representation that hides one often leaves another. The statistic is the
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
        maps[name] = MapScore(r_squared=suspect[name].r_squared(frame), z=z)
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
