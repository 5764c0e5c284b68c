"""What an attacker makes of the responses before the surrogate is trained on them, with an encoder of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks_for_eval.choices import Cleaning
from attacks_for_eval.evasion.fitted import without_distinctive

DISTINCTIVE = 20
"""Directions that `cse` drops."""
OUTLIERS = 0.15
"""Share of the responses that `inliers` drops."""
NEIGHBOURS = 20


def cleaned(kind: Cleaning, responses: Tensor, own: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows that are kept, and their responses.

    Args:
        kind: what is done.
        responses: `(n, d)`, the victim's.
        own: `(n, k)`, of the attacker's own encoder for the same images.
        seed: of the clusters.
    """
    if kind == "cse":
        return torch.arange(len(responses)), without_distinctive(responses, own, DISTINCTIVE, seed)(responses)
    strange = strangeness(responses, own)
    kept = strange.argsort()[: round((1 - OUTLIERS) * len(responses))].sort().values
    return kept, responses[kept]


def strangeness(responses: Tensor, own: Tensor) -> Tensor:
    """Return a local outlier factor of responses, neighbours being those under the own encoder, `(n,)`.

    An image's mean distance to its neighbours' responses, over the mean of the neighbours' own such distances. A
    watermark that moves some images away from their like makes it large.
    """
    count = min(NEIGHBOURS, len(responses) - 1)
    neighbours, distances = [], []
    for rows in torch.split(torch.arange(len(responses)), 1024):
        theirs = torch.cdist(own[rows], own)
        theirs[torch.arange(len(rows)), rows] = float("inf")
        near = theirs.topk(count, largest=False).indices
        neighbours.append(near)
        distances.append(torch.cdist(responses[rows], responses).gather(1, near).mean(1))
    mean = torch.cat(distances)
    return mean / mean[torch.cat(neighbours)].mean(1).clamp_min(1e-12)
