"""Transforms of outputs that are drawn at random and need nothing but the surrogate.

`permute`, `rotate_basis`, `scale` and `pad` are inverted by an affine map; the others lose information.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks_for_eval.evasion.attacker import Attacker, Change, Wrapped, by_dim, hashed, orthogonal
from ownership.encoders.images import EncoderLike


def permute(encoder: EncoderLike, attacker: Attacker) -> nn.Module:
    """Return the encoder with the components of its representations in another order."""

    def make(d: int) -> Change:
        order = torch.randperm(d, generator=attacker.generator())
        return lambda x: x[:, order.to(x.device)]

    return Wrapped(encoder, by_dim(make))


def rotate_basis(encoder: EncoderLike, attacker: Attacker) -> nn.Module:
    """Return the encoder with its representations in a random orthonormal basis."""

    def make(d: int) -> Change:
        q = orthogonal(d, d, attacker.generator())
        return lambda x: x @ q.to(x)

    return Wrapped(encoder, by_dim(make))


def scale(encoder: EncoderLike, attacker: Attacker) -> nn.Module:
    """Return the encoder with each component of its representations scaled by a factor in [1/2, 2] and shifted."""

    def make(d: int) -> Change:
        drawn = torch.rand(2, d, generator=attacker.generator())
        factor, offset = 4 ** (drawn[0] - 0.5), 20 * drawn[1] - 10
        return lambda x: x * factor.to(x) + offset.to(x)

    return Wrapped(encoder, by_dim(make))


def pad(encoder: EncoderLike, attacker: Attacker) -> nn.Module:
    """Return the encoder with d constants (2.5) inserted into its d-dimensional representations at random places."""

    def make(d: int) -> Change:
        order = torch.randperm(2 * d, generator=attacker.generator())
        return lambda x: torch.cat([x, torch.full_like(x, 2.5)], 1)[:, order.to(x.device)]

    return Wrapped(encoder, by_dim(make))


def project(encoder: EncoderLike, attacker: Attacker) -> nn.Module:
    """Return the encoder with its representations projected to d / 2 random directions, which loses information."""

    def make(d: int) -> Change:
        q = orthogonal(d, max(2, d // 2), attacker.generator())
        return lambda x: x @ q.to(x)

    return Wrapped(encoder, by_dim(make))


def rounded(encoder: EncoderLike, _attacker: Attacker) -> nn.Module:
    """Return the encoder with its representations rounded to one decimal."""
    return Wrapped(encoder, lambda x: x.round(decimals=1))


def normalized(encoder: EncoderLike, _attacker: Attacker) -> nn.Module:
    """Return the encoder with its representations scaled to length 1."""
    return Wrapped(encoder, lambda x: F.normalize(x, dim=1))


class _Noisy(nn.Module):
    """An encoder with noise that is a function of the image."""

    def __init__(self, encoder: EncoderLike, attacker: Attacker, percent: float) -> None:
        super().__init__()
        self.encoder, self.attacker, self.percent = encoder, attacker, percent

    def forward(self, images: Tensor) -> Tensor:
        responses: Tensor = self.encoder(images)
        noise = hashed(responses.shape[1], self.attacker.generator())(images).to(responses)
        length = self.percent / 100 * responses.norm(dim=1, keepdim=True)
        out: Tensor = responses + length * F.normalize(noise, dim=1)
        return out


def noisy(encoder: EncoderLike, attacker: Attacker, percent: float = 10) -> nn.Module:
    """Return the encoder with noise of `percent` of each representation's length, the same for repeated queries."""
    return _Noisy(encoder, attacker, percent)


class _Lengths(nn.Module):
    """An encoder whose representations are stretched by a function of the image."""

    def __init__(self, encoder: EncoderLike, attacker: Attacker, strength: float) -> None:
        super().__init__()
        self.encoder, self.strength, self.hash = encoder, strength, hashed(1, attacker.generator())

    def forward(self, images: Tensor) -> Tensor:
        responses: Tensor = self.encoder(images)
        out: Tensor = responses * torch.exp(self.strength * self.hash(images)).to(responses)
        return out


def random_lengths(encoder: EncoderLike, attacker: Attacker, strength: float = 2) -> nn.Module:
    """Return the encoder with each representation multiplied by exp(strength x a hash of the image in [-1, 1])."""
    return _Lengths(encoder, attacker, strength)
