"""Agreement of two encoders about which images are alike, beyond what the images show without training. NumPy only.

Mutual k-nearest-neighbour alignment (Huh et al. 2024) counts how many of an image's nearest neighbours two encoders
share. On simple images the pixels alone share most of them, so neighbours that a baseline finds, too, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ownership.evidence.similarity import Array

Neighbours = NDArray[np.bool_]

K = 10
"""Nearest neighbours of each image."""


def nearest_neighbours(x: Array, k: int = K) -> Neighbours:
    """Return whether image j is among the k nearest neighbours of image i, `(n, n)`.

    Representations are centred, so that no mean common to all images dominates; near is a large cosine. Of neighbours
    equally near, the first ones count. No image is its own neighbour.

    Args:
        x: `(n, d)`.
        k: at least 1; at most n - 1 neighbours are found.
    """
    centred = x - x.mean(0)
    units = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : min(k, len(x) - 1)]
    found = np.zeros(cosines.shape, dtype=np.bool_)
    np.put_along_axis(found, nearest, True, axis=1)
    return found


def agreement_beyond(reference: Neighbours, other: Neighbours, baselines: Mapping[str, Neighbours]) -> float:
    """Return the share of a reference's neighbours, of those that no baseline finds, that another encoder finds.

    0 if the baselines find all of them.

    Args:
        reference: neighbours under the reference, `(n, n)`.
        other: neighbours under the other encoder.
        baselines: name -> neighbours under a baseline.

    References:
        [1] Huh et al., The Platonic Representation Hypothesis, ICML 2024, appendix A (mutual k-NN): the same without
            baselines.
    """
    beyond = reference & ~np.any([*baselines.values(), np.zeros_like(reference)], axis=0)
    return float((beyond & other).sum() / max(1, beyond.sum()))


def agreements(reference: Neighbours, other: Neighbours, baselines: Mapping[str, Neighbours]) -> dict[str, float]:
    """Return the agreement of an encoder beyond all baselines but one, for each of them.

    The baseline that is left in can be compared with the encoder: both are scored on the same neighbours.

    Args:
        reference: neighbours under the reference, `(n, n)`.
        other: neighbours under the other encoder.
        baselines: name -> neighbours under a baseline.
    """
    return {
        left_in: agreement_beyond(reference, other, {n: x for n, x in baselines.items() if n != left_in})
        for left_in in baselines
    }
