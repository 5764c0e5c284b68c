"""Whether a suspect answers the probes as it answers other images of their pool: a classifier two-sample test.

An attacker who knows the probes, from an earlier audit or a disclosed claim, can answer them with another encoder than
all other images (a gate). The key drew the probes from the pool at random, so for a suspect without a gate their labels
(probe or other image) are exchangeable, whatever the suspect is: a permutation test is exact.

A linear classifier looks for the labels in what each response is and in how well the image explains it. Two encoders
differ in the second even where a gate gives their responses the same distribution.

References:
    [1] Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ownership.evidence.similarity import Array, directions
from ownership.keyed.baselines import baselines_without_key
from ownership.keyed.readings import regular
from ownership.keyed.regression import cross_fitted

COMPONENTS = 32
"""Leading principal components of the responses, white, that the classifier reads; and of each baseline."""
PERMUTATIONS = 9_999
MOST = 1000
"""Largest number of probes, and of other images, that are compared."""
LEAST = 100
"""Smallest number of other images."""
COLUMNS = 2 * COMPONENTS + 2
"""Most columns that the classifier reads."""
SMALLEST = 1e-9
"""Features that vary less, in absolute terms or relative to the others, are rounding errors."""
BLOCK = 1000
"""Permutations at a time."""


def classifier_features(responses: Array, images: Tensor) -> Array:
    """Return what the classifier reads of each response, `(n, at most 66)`.

    It is the leading components of the responses; their squares; the logarithm of their length; and the logarithm of
    the squared error with which pixels and random networks of the image predict them (cross-fitted).

    Args:
        responses: `(n, d)`.
        images: `(n, c, h, w)` uint8, that they are responses to.
    """
    white = directions(regular(responses), COMPONENTS) * np.sqrt(len(responses))
    known = np.concatenate([directions(x, COMPONENTS) for x in baselines_without_key(images).values()], axis=1)
    error = ((white - cross_fitted(known, white)) ** 2).sum(1)
    length = (white**2).sum(1)
    out: Array = np.c_[white, white**2, np.log(length + 1e-9), np.log(error + 1e-9)]
    return out


def pool_test(features: Array, probes: NDArray[np.bool_], random: np.random.Generator) -> tuple[float, int]:
    """Return the share of the labels' variance that a linear classifier explains, and how many permutations reach it.

    H0: which of the images are probes does not show in the responses. H1: the suspect answers probes differently. Unit:
    the image. With p = (1 + reaching) / (1 + 9,999) the test is exact (Phipson and Smyth, 2010), if neither the
    features nor their order depend on which images are probes.

    Args:
        features: `(n, p)`.
        probes: `(n,)`, whether an image is a probe.
        random: draws the permutations.
    """
    u, s, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
    u = u[:, s > SMALLEST * max(1.0, s[0])]
    labels = probes - probes.mean()
    labels /= np.linalg.norm(labels)
    own = float(((u.T @ labels) ** 2).sum())
    reaching = 0
    for start in range(0, PERMUTATIONS, BLOCK):
        count = min(BLOCK, PERMUTATIONS - start)
        shuffled = random.permuted(np.broadcast_to(labels, (count, len(labels))), axis=1)
        reaching += int((((shuffled @ u) ** 2).sum(1) >= own * (1 - 1e-12)).sum())
    return own, reaching
