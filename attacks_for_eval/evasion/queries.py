"""Suspects that look at the query before they answer it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks_for_eval.evasion.attacker import Attacker, thumbnail
from ownership.encoders.images import EncoderLike, as_input, as_uint8, represent, three_channels
from ownership.evidence.similarity import ridge_map
from ownership.watermark import TURN, rotate

SAME = 1e-6
"""Mean squared difference of thumbnails below which two images count as the same."""
RIDGE = 1.0
"""Penalty of the linear detectors, of the mean variance of their features."""


def _detector(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return weights `(d, classes)` and intercept `(classes,)` of a ridge classifier."""
    known = F.one_hot(labels, classes).double()
    weights, intercept = ridge_map(features.double().numpy(), known.numpy(), RIDGE)
    return torch.from_numpy(weights), torch.from_numpy(intercept)


class _Unrotate(nn.Module):
    """An encoder that rotates an image back first, as far as a rotation predictor can tell."""

    def __init__(self, encoder: EncoderLike, attacker: Attacker) -> None:
        super().__init__()
        images, self.encoder, self.own = attacker.own_images(), encoder, attacker.own_encoder()
        rotated = torch.cat([images.rot90(k, (2, 3)) for k in range(4)])
        labels = torch.arange(4).repeat_interleave(len(images))
        self.weights, self.intercept = _detector(represent(self.own, rotated), labels, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Return the encoder's representations of the images, rotated back by the predicted multiple of 90 degrees."""
        scores = self.own(images).double() @ self.weights.to(images.device) + self.intercept.to(images.device)
        turns = scores.argmax(1)
        back = torch.stack([images.rot90(-k, (2, 3)) for k in range(4)])
        return self.encoder(back[turns, torch.arange(len(images), device=images.device)].contiguous())


def unrotate(encoder: EncoderLike, attacker: Attacker) -> nn.Module:
    """Return the encoder behind a predictor of 90-degree rotations that rotates each image back (square images)."""
    return _Unrotate(encoder, attacker)


class _MeanOfRotations(nn.Module):
    def __init__(self, encoder: EncoderLike, count: int) -> None:
        super().__init__()
        self.encoder, self.angles = encoder, torch.arange(count) * (TURN / count)

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean representation of the rotated copies."""
        total = torch.zeros(())
        for angle in self.angles:
            total = total + self.encoder(rotate(images, angle.expand(len(images)).to(images.device)))
        return total / len(self.angles)


def mean_of_rotations(encoder: EncoderLike, _attacker: Attacker, count: float = 8) -> nn.Module:
    """Return the encoder that answers with the mean of its representations of `count` rotated copies."""
    return _MeanOfRotations(encoder, int(count))


class _Gate(nn.Module):
    """An encoder that answers queries which look like probes with another encoder."""

    def __init__(self, encoder: EncoderLike, attacker: Attacker) -> None:
        super().__init__()
        images, self.encoder, self.own = attacker.own_images(), encoder, attacker.own_encoder()
        angles = torch.rand(len(images), generator=attacker.generator()) * TURN
        probes = as_uint8(rotate(as_input(images), angles))
        shown = torch.cat([_looks(as_input(images)), _looks(as_input(probes))])
        labels = torch.arange(2).repeat_interleave(len(images))
        self.weights, self.intercept = _detector(shown, labels, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Return the encoder's representations, or those of the attacker's own one, truncated or padded."""
        scores = _looks(images) @ self.weights.to(images.device) + self.intercept.to(images.device)
        x: Tensor = self.encoder(images)
        own = self.own(images).to(x)[:, : x.shape[1]]
        own = F.pad(own, (0, x.shape[1] - own.shape[1]))
        return torch.where((scores[:, 1:] > scores[:, :1]), own, x)


def _looks(images: Tensor) -> Tensor:
    """Return simple features of images: an 8 x 8 thumbnail of each channel, and how dark the corners are, float64."""
    images = three_channels(images)
    small = F.adaptive_avg_pool2d(images, 8).flatten(1).double()
    side = max(1, min(images.shape[-2:]) // 8)
    rows, columns = (slice(None, side), slice(-side, None)), (slice(None, side), slice(-side, None))
    corners = torch.stack([images[:, :, r, c].flatten(1).max(1).values for r in rows for c in columns], 1)
    return torch.cat([small, 10 * (corners < 0.02).double()], 1)


def gate(encoder: EncoderLike, attacker: Attacker) -> nn.Module:
    """Return the encoder behind a gate: what looks like a rotated probe is answered by the attacker's own encoder."""
    return _Gate(encoder, attacker)


class _GateProbes(nn.Module):
    """An encoder that answers the probes that it knows with another encoder."""

    def __init__(self, encoder: EncoderLike, attacker: Attacker) -> None:
        super().__init__()
        images, self.encoder, self.own = attacker.own_images(), encoder, attacker.own_encoder()
        self.known = thumbnail(as_input(three_channels(attacker.known_probes())))
        own, copied = (represent(e, images).double().numpy() for e in (self.own, encoder))
        weights, intercept = ridge_map(own, copied)
        self.weights, self.intercept = torch.from_numpy(weights), torch.from_numpy(intercept)

    def forward(self, images: Tensor) -> Tensor:
        """Return the encoder's representations; of known probes those of the own encoder, mapped to look like them."""
        seen, known = thumbnail(three_channels(images)), self.known.to(images.device)
        squared = seen.square().sum(1)[:, None] + known.square().sum(1) - 2 * seen @ known.T
        probe = squared.min(1, keepdim=True).values < SAME * known.shape[1]
        x: Tensor = self.encoder(images)
        own = self.own(images).double() @ self.weights.to(images.device) + self.intercept.to(images.device)
        return torch.where(probe, own.to(x), x)


def gate_probes(encoder: EncoderLike, attacker: Attacker) -> nn.Module:
    """Return the encoder behind a gate that knows a claim's probes and answers them with the attacker's own encoder."""
    return _GateProbes(encoder, attacker)
