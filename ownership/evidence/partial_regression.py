"""Partial regression: how well a suspect predicts what of the victim no control and no untrained feature explains.

Partial RSA reads the 32 directions of largest variance of a suspect, so an attacker who scales the outputs chooses what
is compared. This statistic reads all directions alike. No invertible linear map of the suspect's representations
changes it, and columns that are appended cost a degree of freedom each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor

from ownership.evidence.distance import trimmed_z
from ownership.evidence.responses import NotApplicable, Responses, ScoringContext
from ownership.evidence.similarity import Array, directions
from ownership.keyed.baselines import baselines_without_key
from ownership.keyed.readings import regular
from ownership.stats import MIN_STRATUM

DIRECTIONS = 32
"""Leading principal components of victim and controls that are predicted and explained."""
BASELINE_DIRECTIONS = 64
"""Leading principal components of each untrained baseline that explain, too."""
PENALTY, BASELINE_PENALTY = 3.0, 0.3
"""Ridge penalties of controls and baselines, on components of length 1."""


@lru_cache(maxsize=2)  # of a tensor, by identity: every score of a claim needs them
def baseline_directions(images: Tensor) -> tuple[Array, ...]:
    """Return the leading directions of untrained features, each `(n, at most 64)`.

    Without them, columns of pixels that are appended to an independent encoder would count for a copy: a watermark
    shows features of the image.

    Args:
        images: `(n, c, h, w)` uint8, the public probes.
    """
    return tuple(directions(x, BASELINE_DIRECTIONS) for x in baselines_without_key(images).values())


def residuals(encoders: Sequence[Array], baselines: Sequence[Array]) -> list[Array]:
    """Return the residual of each encoder's directions after ridge regression on all others' and the baselines'.

    With K = I + sum W_j W_j' / 3 + sum B_j B_j' / 0.3 the residual of W_k on the others is (K - W_k W_k' / 3)^-1 W_k.
    By the Woodbury identity it is K^-1 W_k (I - W_k' K^-1 W_k / 3)^-1, so one K serves all k.

    Args:
        encoders: `directions` of each encoder, `(n, k)`.
        baselines: `directions` of each baseline, `(n, k)`.
    """
    n = len(encoders[0])
    known = np.concatenate(encoders, axis=1) / np.sqrt(PENALTY)
    given = np.concatenate([np.zeros((n, 0)), *baselines], axis=1) / np.sqrt(BASELINE_PENALTY)
    kernel = cho_factor(np.eye(n) + known @ known.T + given @ given.T)
    explained = cho_solve(kernel, np.concatenate(encoders, axis=1))
    found, start = [], 0
    for w in encoders:
        part = explained[:, start : start + w.shape[1]]
        found.append(part @ np.linalg.inv(np.eye(w.shape[1]) - w.T @ part / PENALTY))
        start += w.shape[1]
    return found


def share(of: Array, by: Array) -> float:
    """Return the share of a residual's variance that directions predict, adjusted for their number: 0 by chance.

    Args:
        of: `(n, k)`, centred.
        by: `(n, d)`, orthonormal and centred, d < n - 1.
    """
    explained = float(((by.T @ of) ** 2).sum()) / float((of**2).sum())
    used: float = by.shape[1] / (len(by) - 1)
    return (explained - used) / (1 - used)


def partial_regression(suspect: Responses, context: ScoringContext) -> float:
    """Return how much better a suspect predicts what is specific to the victim than what is specific to a control.

    For the victim and each control k that is not distilled, `r_k` is the residual of its 32 leading directions after
    ridge regression on those of all others and on the context's baselines, and `z_k` the Fisher z of the share of it
    that the suspect's representations predict (least squares). The score is `z_victim`, standardised over the
    controls as in `partial_rsa_relative`.

    Invariant to every invertible linear map of the suspect's representations, unless its scales are so uneven that they
    are rescaled first (`regular`).

    Raises:
        NotApplicable: if fewer than `MIN_STRATUM` controls are left, or the suspect has as many dimensions as there are
            probes, or an encoder is constant.
    """
    if len(context.undistilled) < MIN_STRATUM:
        raise NotApplicable(f"the panel has {len(context.undistilled)} other members")
    read = directions(regular(suspect.get("public")))
    if not 1 <= read.shape[1] < len(read) - 1:
        raise NotApplicable(f"representations have {read.shape[1]} independent numbers for {len(read)} probes")
    known = [e.directions(DIRECTIONS) for e in (context.victim, *context.undistilled)]
    if min(w.shape[1] for w in known) == 0:
        raise NotApplicable("an encoder of the claim is constant")
    z = [np.arctanh(np.clip(share(r, read), -0.99, 0.99)) for r in residuals(known, context.baselines)]
    return trimmed_z(float(z[0]), [float(x) for x in z[1:]])
