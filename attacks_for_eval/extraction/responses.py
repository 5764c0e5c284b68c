"""What an attacker makes of the responses before the surrogate is trained on them, with an encoder of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from attacks_for_eval.choices import Cleaning

DISTINCTIVE = 20
"""Directions that `cse` drops."""
OUTLIERS = 0.15
"""Share of the responses that `inliers` drops."""
NEIGHBOURS = 20
MOST = 4000
"""Images that centroids are computed on, at most."""


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


def without_distinctive(x: Tensor, own: Tensor, count: int, seed: int) -> Callable[[Tensor], Tensor]:
    """Return the map that removes the directions in which representations differ from an own encoder's (CSE).

    Args:
        x: `(n, d)`, of at most `MOST` images.
        own: `(n, k)`, the own encoder's of the same images.
        count: directions to remove.
        seed: of the clusters.
    """
    x, own = x[:MOST], own[:MOST]
    means = centroids(x, 20, seed)
    cluster = torch.cdist(x, means).argmin(1)
    chosen = []
    for k in range(len(means)):
        rows = (cluster == k).nonzero()[:, 0]
        if len(rows) < 2:
            continue
        a, b = (F.normalize(v[rows] - v.mean(0), dim=1) for v in (x, own))
        gap = torch.triu((a @ a.T - b @ b.T).abs(), 1)
        largest = gap.flatten().topk(max(1, gap.numel() // 200)).indices
        chosen += [rows[largest // len(rows)], rows[largest % len(rows)]]
    pairs = x[torch.cat(chosen)] if chosen else x
    directions = torch.linalg.svd(pairs, full_matrices=False)[2][:count].T

    def change(y: Tensor) -> Tensor:
        q = directions.to(y)
        return F.normalize(y - y @ q @ q.T, dim=1)

    return change


def centroids(x: Tensor, count: int, seed: int) -> Tensor:
    """Return `count` centroids of representations `(n, d)` by k-means, fewer if there are few."""
    from sklearn.cluster import MiniBatchKMeans

    count = min(count, max(1, len(x) // 4))
    means = MiniBatchKMeans(count, random_state=seed, n_init=1, batch_size=1024).fit(x[:MOST].double().numpy())
    return torch.from_numpy(means.cluster_centers_).to(x)


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
