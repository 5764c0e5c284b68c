"""The test of twins: which of them a suspect resembles most, from representations alone.

The score of a twin is how well the suspect's representations predict the twin's. It is computed for each twin in the
same way, and nothing of it depends on which twin was picked. So if the suspect does not depend on the pick, the rank of
the picked twin is uniform: p = (1 + number of others that score as high) / m is exact (docs/explanation/twins.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ownership.keyed.readings import FLOOR, regular
from ownership.keyed.regression import cross_fitted

Array = NDArray[np.float64]

COMPONENTS = 32
"""Leading principal components of a twin that are predicted."""
BLOCK = 32
"""Twins that are predicted at once: more would need much memory."""
DECIMALS = 12
"""Decimal places of a score: rounding errors of the arithmetic break no tie."""


def twin_components(representations: Array) -> Array:
    """Return what of a twin is predicted: its leading principal components, white, `(n, at most 32)`.

    Args:
        representations: of the probes, `(n, d)`.
    """
    u, s, _ = np.linalg.svd(representations - representations.mean(0), full_matrices=False)
    kept = s[:COMPONENTS] > FLOOR * s[0] if s.size and s[0] > 0 else np.zeros(0, dtype=bool)
    out: Array = u[:, : len(kept)][:, kept]
    return out


def twin_scores(suspect: Array, components: Sequence[Array]) -> tuple[float, ...]:
    """Return, for each twin, the share of its components' variance that the suspect predicts (cross-fitted R squared).

    An invertible linear map of the suspect's representations changes nothing but, perhaps, the scale that the
    regression chooses (`cross_fitted`). A twin without variance has score 0.

    Args:
        suspect: its representations of the probes, `(n, d)`.
        components: of each twin (`twin_components`), `(n, k)`.
    """
    scores: list[float] = []
    suspect = regular(suspect)
    for start in range(0, len(components), BLOCK):
        block = components[start : start + BLOCK]
        stacked = np.concatenate(block, axis=1)
        stacked = stacked - stacked.mean(0)
        predicted = cross_fitted(suspect, stacked)
        ends = np.cumsum([c.shape[1] for c in block])[:-1]
        for y, p in zip(np.split(stacked, ends, axis=1), np.split(predicted, ends, axis=1), strict=True):
            variance = float((y**2).sum())
            share = 1 - float(((y - p) ** 2).sum()) / variance if variance > 0 else 0.0
            scores.append(round(share, DECIMALS))
    return tuple(scores)


def reaching(scores: Sequence[float], picked: int) -> int:
    """Return how many other twins score at least as high as the picked one; ties count against rejection.

    >>> reaching((0.1, 0.5, 0.5), 1), reaching((0.1, 0.5, 0.6), 2)
    (1, 0)
    """
    return sum(score >= scores[picked] for i, score in enumerate(scores) if i != picked)
