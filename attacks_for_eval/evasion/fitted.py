"""Linear and local transforms of outputs whose parameters are computed on the attacker's images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks_for_eval.evasion.attacker import Attacker, Wrapped
from attacks_for_eval.extraction.responses import MOST, centroids, without_distinctive
from ownership.encoders.images import EncoderLike, represent
from ownership.evidence.similarity import ridge_map

FLOOR = 1e-4
"""Principal components below this multiple of the largest singular value are left out."""


def principal(encoder: EncoderLike, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean `(d,)`, principal directions `(d, k)` and standard deviations `(k,)` of representations."""
    x = represent(encoder, images)
    mean = x.mean(0)
    _, s, directions = torch.linalg.svd(x - mean, full_matrices=False)
    kept = s > FLOOR * s[0]
    return mean, directions[kept].T, s[kept] / max(1, len(x) - 1) ** 0.5


def pca(encoder: EncoderLike, attacker: Attacker, percent: float = 50) -> nn.Module:
    """Return the encoder with its representations projected to the first `percent` of their principal components."""
    mean, directions, _ = principal(encoder, attacker.own_images())
    kept = directions[:, : max(2, round(directions.shape[0] * percent / 100))]
    return Wrapped(encoder, lambda x: (x - mean.to(x)) @ kept.to(x))


def drop_leading(encoder: EncoderLike, attacker: Attacker, count: float = 8) -> nn.Module:
    """Return the encoder without its `count` leading principal components."""
    mean, directions, _ = principal(encoder, attacker.own_images())
    kept = directions[:, int(count) :]
    return Wrapped(encoder, lambda x: (x - mean.to(x)) @ kept.to(x))


def spectrum(encoder: EncoderLike, attacker: Attacker, power: float = 1) -> nn.Module:
    """Return the encoder with principal components of standard deviation s divided by s^power: 1 whitens."""
    mean, directions, scales = principal(encoder, attacker.own_images())
    onto = directions / scales**power
    return Wrapped(encoder, lambda x: (x - mean.to(x)) @ onto.to(x))


def reverse_spectrum(encoder: EncoderLike, attacker: Attacker) -> nn.Module:
    """Return the encoder with its standard deviations in reverse order: the smallest component becomes the largest."""
    mean, directions, scales = principal(encoder, attacker.own_images())
    onto = directions / scales * scales.flip(0)
    return Wrapped(encoder, lambda x: (x - mean.to(x)) @ onto.to(x))


def average(encoder: EncoderLike, attacker: Attacker) -> nn.Module:
    """Return the mean with the attacker's own encoder, each scaled to length 1; the longer one is truncated."""
    own = attacker.own_encoder()

    class Average(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            a, b = F.normalize(encoder(images), dim=1), F.normalize(own(images), dim=1)
            d = min(a.shape[1], b.shape[1])
            return (a[:, :d] + b[:, :d]) / 2

    return Average()


def subtract_own(encoder: EncoderLike, attacker: Attacker, penalty: float = 0.1) -> nn.Module:
    """Return what a ridge regression on the attacker's own encoder leaves of the representations."""
    own, images = attacker.own_encoder(), attacker.own_images()
    x, y = (represent(e, images).double().numpy() for e in (own, encoder))
    weights, intercept = map(torch.from_numpy, ridge_map(x, y, penalty))

    class Difference(nn.Module):
        def forward(self, shown: Tensor) -> Tensor:
            out: Tensor = encoder(shown)
            left: Tensor = out - own(shown).to(out) @ weights.to(out) - intercept.to(out)
            return left

    return Difference()


def blend_centroids(encoder: EncoderLike, attacker: Attacker, percent: float = 50) -> nn.Module:
    """Return the encoder with each representation moved `percent` of the way to the nearest of 50 centroids."""
    means = centroids(represent(encoder, attacker.own_images()), 50, attacker.seed)
    share = percent / 100

    def change(x: Tensor) -> Tensor:
        nearest = means.to(x)[torch.cdist(x, means.to(x)).argmin(1)]
        return (1 - share) * x + share * nearest

    return Wrapped(encoder, change)


def codes(encoder: EncoderLike, attacker: Attacker, group: float = 8) -> nn.Module:
    """Return the encoder with each `group` of components replaced by the nearest of 256 centroids.

    It is the product quantisation of vector databases (Jegou et al., PAMI 2011).
    """
    x = represent(encoder, attacker.own_images())
    size = max(1, int(group))
    books = [centroids(part, 256, attacker.seed) for part in torch.split(x, size, dim=1)]

    def change(y: Tensor) -> Tensor:
        parts = zip(torch.split(y, size, dim=1), books, strict=True)
        return torch.cat([book.to(y)[torch.cdist(part, book.to(y)).argmin(1)] for part, book in parts], 1)

    return Wrapped(encoder, change)


def drop_distinctive(encoder: EncoderLike, attacker: Attacker, count: float = 20) -> nn.Module:
    """Return the encoder without the directions in which it differs from the attacker's own, and of length 1.

    The CSE attack (Shetty et al., WARDEN, ACL 2024): in each of 20 clusters the pairs whose cosine similarity differs
    most from that under the own encoder are collected; their `count` leading singular directions are removed.
    """
    images = attacker.own_images()[:MOST]
    x, own = represent(encoder, images), represent(attacker.own_encoder(), images)
    return Wrapped(encoder, without_distinctive(x, own, int(count), attacker.seed))
