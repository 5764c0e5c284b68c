"""Transforms that put other columns beside a surrogate's representations, or in the place of some.

The columns are scaled to `factor` times the representations' spread, so that they hold the leading principal
components: a comparison of these alone compares the columns. A linear classifier loses nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks_for_eval.evasion.attacker import HASHED_SIDE, Attacker, hashed, orthogonal, spread, thumbnail
from attacks_for_eval.evasion.fitted import principal
from ownership.encoders.images import EncoderLike, represent
from watermark_training.device import seeded


class _Beside(nn.Module):
    """An encoder with further columns, `factor` times as large, beside its representations."""

    def __init__(self, encoder: EncoderLike, columns: EncoderLike, images: Tensor, factor: float) -> None:
        super().__init__()
        own = represent(columns, images)
        self.encoder, self.columns, self.mean = encoder, columns, own.mean(0)
        self.factor = float(factor * spread(represent(encoder, images)) / spread(own))

    def forward(self, images: Tensor) -> Tensor:
        """Return `(n, d + k)`."""
        x: Tensor = self.encoder(images)
        columns = self.columns(images).to(x)
        return torch.cat([x, self.factor * (columns - self.mean.to(x))], 1)


def append_own(encoder: EncoderLike, attacker: Attacker, factor: float = 10) -> nn.Module:
    """Return the encoder with the representations of the attacker's own encoder beside its own."""
    return _Beside(encoder, attacker.own_encoder(), attacker.own_images(), factor)


def append_own_white(encoder: EncoderLike, attacker: Attacker) -> nn.Module:
    """Return the encoder and the attacker's own one side by side, both whitened: no direction leads."""
    images = attacker.own_images()
    return _Beside(_whitened(encoder, images), _whitened(attacker.own_encoder(), images), images, 1)


def append_own_relu(encoder: EncoderLike, attacker: Attacker, width: float = 256) -> nn.Module:
    """Return the encoder with `width` ReLU features of the attacker's own encoder beside its representations."""
    own, images = attacker.own_encoder(), attacker.own_images()
    d = represent(own, images[:8]).shape[1]
    layer = torch.randn(d, int(width), generator=attacker.generator())
    return _Beside(encoder, lambda x: F.relu(own(x) @ layer.to(x)), images, 10)


def append_random_features(encoder: EncoderLike, attacker: Attacker, factor: float = 10) -> nn.Module:
    """Return the encoder with 64 features of an untrained convolutional network beside its representations."""
    with seeded(attacker.generator()):
        network = nn.Sequential(
            nn.Conv2d(3, 32, 5, stride=2), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
    return _Beside(encoder, network.requires_grad_(False).eval(), attacker.own_images(), factor)


def append_pixels(encoder: EncoderLike, attacker: Attacker, count: float = 64) -> nn.Module:
    """Return the encoder with `count` random projections of the image, 10 times as large."""
    images = attacker.own_images()
    mix = torch.randn(HASHED_SIDE**2, int(count), generator=attacker.generator(), dtype=torch.float64)
    return _Beside(encoder, lambda x: thumbnail(x) @ mix.to(x.device), images, 10)


def append_hash(encoder: EncoderLike, attacker: Attacker, count: float = 40) -> nn.Module:
    """Return the encoder with `count` columns of noise that is a function of the image, 10 times as large."""
    return _Beside(encoder, hashed(int(count), attacker.generator()), attacker.own_images(), 10)


def append_products(encoder: EncoderLike, attacker: Attacker, factor: float = 3) -> nn.Module:
    """Return the encoder with the products of its 8 leading components beside its representations."""
    images = attacker.own_images()
    mean, directions, scales = principal(encoder, images)
    onto = directions[:, :8] / scales[:8]
    i, j = torch.triu_indices(onto.shape[1], onto.shape[1])

    def products(x: Tensor) -> Tensor:
        y = encoder(x)
        scores = (y - mean.to(y)) @ onto.to(y)
        return scores[:, i] * scores[:, j]

    return _Beside(encoder, products, images, factor)


class _InPlace(nn.Module):
    """An encoder with another one's leading components added in half of the directions."""

    def __init__(self, encoder: EncoderLike, attacker: Attacker, factor: float) -> None:
        super().__init__()
        images = attacker.own_images()
        self.encoder, self.own = encoder, attacker.own_encoder()
        x = represent(encoder, images)
        self.mean, directions, _ = principal(self.own, images)
        self.onto = directions[:, : max(1, x.shape[1] // 2)]
        scores = (represent(self.own, images) - self.mean) @ self.onto
        back = orthogonal(self.onto.shape[1], x.shape[1], attacker.generator())
        self.back = back * (factor * spread(x) / spread(scores))

    def forward(self, images: Tensor) -> Tensor:
        """Return `(n, d)`, as long as the surrogate's own."""
        x: Tensor = self.encoder(images)
        scores = (self.own(images).to(x) - self.mean.to(x)) @ self.onto.to(x)
        out: Tensor = x + scores @ self.back.to(x)
        return out


def replace_half(encoder: EncoderLike, attacker: Attacker, factor: float = 10) -> nn.Module:
    """Return the encoder with the attacker's own one added, larger, in a random half of its directions."""
    return _InPlace(encoder, attacker, factor)


def _whitened(encoder: EncoderLike, images: Tensor) -> EncoderLike:
    mean, directions, scales = principal(encoder, images)
    onto = directions / scales
    return lambda x: (y := encoder(x)).sub(mean.to(y)) @ onto.to(y)
