"""Nonlinear transforms of outputs: bijections, networks, quantised values. Scales are of the attacker's images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks_for_eval.evasion.attacker import Attacker, Change, Wrapped, by_dim, orthogonal, standardizer
from ownership.encoders.images import EncoderLike, represent

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda z: torch.tanh(3 * z),
    "softsign": lambda z: 3 * z / (1 + 3 * z.abs()),
    "cube": lambda z: z**3,
    "exp": lambda z: torch.exp((2 * z).clamp(max=20)),
    "sine": lambda z: torch.sin(3 * z),
    "relu": torch.relu,
}
"""Functions that `activation` applies to each component of standardized representations."""


def _standardized(encoder: EncoderLike, attacker: Attacker, make: Callable[[int], Change]) -> nn.Module:
    standard, drawn = standardizer(encoder, attacker.own_images()), by_dim(make)
    return Wrapped(encoder, lambda x: drawn(standard(x)))


def activation(encoder: EncoderLike, attacker: Attacker, name: str = "tanh") -> nn.Module:
    """Return the encoder with a function of `ACTIVATIONS` applied in a random basis."""

    def make(d: int) -> Change:
        q = orthogonal(d, d, attacker.generator())
        return lambda z: ACTIVATIONS[name](z @ q.to(z))

    return _standardized(encoder, attacker, make)


def relu_features(encoder: EncoderLike, attacker: Attacker, width: float = 256) -> nn.Module:
    """Return `width` ReLU features of the representations instead of these."""

    def make(d: int) -> Change:
        mix = torch.randn(d, int(width), generator=attacker.generator())
        return lambda z: torch.relu(z @ mix.to(z))

    return _standardized(encoder, attacker, make)


def signs(encoder: EncoderLike, attacker: Attacker, width: float = 512) -> nn.Module:
    """Return the signs of `width` random projections of the representations instead of these."""

    def make(d: int) -> Change:
        mix = torch.randn(d, int(width), generator=attacker.generator())
        return lambda z: torch.sign(z @ mix.to(z))

    return _standardized(encoder, attacker, make)


def random_network(encoder: EncoderLike, attacker: Attacker, layers: float = 2) -> nn.Module:
    """Return the encoder followed by `layers` random layers of the same width with leaky ReLU."""

    def make(d: int) -> Change:
        generator = attacker.generator()
        weights = [torch.randn(d, d, generator=generator) * (2 / d) ** 0.5 for _ in range(int(layers))]

        def change(z: Tensor) -> Tensor:
            for w in weights:
                z = nn.functional.leaky_relu(z @ w.to(z), 0.1)
            return z

        return change

    return _standardized(encoder, attacker, make)


def coupling(encoder: EncoderLike, attacker: Attacker, layers: float = 4) -> nn.Module:
    """Return the encoder followed by `layers` random affine coupling layers, a nonlinear bijection.

    Half of the components, in a random basis, is scaled and shifted by a function of the other half
    (Dinh et al., Real NVP, ICLR 2017).
    """

    def make(d: int) -> Change:
        generator, h = attacker.generator(), d // 2
        bases = [orthogonal(d, d, generator) for _ in range(int(layers))]
        nets = [torch.randn(2, h, d - h, generator=generator) / max(1, h) ** 0.5 for _ in bases]

        def change(z: Tensor) -> Tensor:
            for q, (gain, shift) in zip(bases, nets, strict=True):
                z = z @ q.to(z)
                a, b = z[:, :h], z[:, h:]
                z = torch.cat(
                    [a, b * torch.exp(0.5 * torch.tanh(a @ gain.to(z))) + 0.5 * torch.tanh(a @ shift.to(z))], 1
                )
            return z

        return change

    return _standardized(encoder, attacker, make)


def tanh_residual(encoder: EncoderLike, attacker: Attacker, strength: float = 0.9) -> nn.Module:
    """Return z + a tanh(z Q) of standardized representations z, Q orthogonal, a = `strength` below 1: a bijection."""

    def make(d: int) -> Change:
        q = orthogonal(d, d, attacker.generator())
        return lambda z: z + strength * torch.tanh(z @ q.to(z))

    return _standardized(encoder, attacker, make)


def half_planes(encoder: EncoderLike, attacker: Attacker, count: float = 1) -> nn.Module:
    """Return the encoder with all representations on one side of a random hyperplane moved far, in a random direction.

    `count` times, by 10 standard deviations each (Davari et al., Reliability of CKA as a Similarity Measure,
    ICLR 2023).
    """

    def make(d: int) -> Change:
        generator = attacker.generator()
        planes = torch.randn(2, int(count), d, generator=generator)
        normal, moved = nn.functional.normalize(planes, dim=2)
        return lambda z: z + 10 * (z @ normal.T.to(z) > 0).to(z) @ moved.to(z)

    return _standardized(encoder, attacker, make)


def ranks(encoder: EncoderLike, attacker: Attacker) -> nn.Module:
    """Return each component's rank among the attacker's images."""
    ordered = represent(encoder, attacker.own_images()).sort(0).values.T.contiguous()

    def change(x: Tensor) -> Tensor:
        return torch.searchsorted(ordered.to(x), x.T.contiguous()).T.to(x) / ordered.shape[1]

    return Wrapped(encoder, change)
