"""What a thief does to a stolen encoder so that it no longer looks stolen: composable wrappers.

Of outputs (three lines in front of an API, no training): `permute`, `rotate_basis`, `scale`, `pad`, `project`,
`rounded`, `normalised`, `noisy`, and two that need more than the encoder, `pca` (images) and `average` (another
encoder). Of weights (the file changes, the use nearly not): `prune`, `quantise`, `halve`. Each takes an
encoder and returns one; `launder` applies several by name, as in `launder(encoder, ["prune", "permute"], seed=0)`.
`fine_tune` trains on and needs images, and so stands apart.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike, represent
from ownership.errors import TrainingError
from ownership.io.progress import Progress, silent
from watermark_training.config import TrainConfig
from watermark_training.training import train


class _Output(nn.Module):
    """An encoder followed by a fixed change of its answers."""

    def __init__(self, encoder: EncoderLike, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder, self.change = encoder, change

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.change(self.encoder(images))
        return out


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _orthogonal(rows: int, columns: int, seed: int) -> Tensor:
    """Random matrix `(rows, columns)` with orthonormal columns, or rows if there are fewer of them."""
    q, r = torch.linalg.qr(torch.randn(max(rows, columns), min(rows, columns), generator=_generator(seed)))
    signed: Tensor = q * torch.sign(torch.diagonal(r))
    return signed if rows >= columns else signed.T


def _by_dim(make: Callable[[int], Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
    """A change that is drawn once the length of a representation is known, and then stays."""
    made: dict[int, Callable[[Tensor], Tensor]] = {}

    def change(x: Tensor) -> Tensor:
        d = x.shape[1]
        if d not in made:
            made[d] = make(d)
        return made[d](x)

    return change


def permute(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Returns the encoder with the numbers of its representations in another order."""

    def make(d: int) -> Callable[[Tensor], Tensor]:
        order = torch.randperm(d, generator=_generator(seed))
        return lambda x: x[:, order.to(x.device)]

    return _Output(encoder, _by_dim(make))


def rotate_basis(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Returns the encoder with its representations in a random orthonormal basis."""

    def make(d: int) -> Callable[[Tensor], Tensor]:
        q = _orthogonal(d, d, seed)
        return lambda x: x @ q.to(x)

    return _Output(encoder, _by_dim(make))


def scale(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Returns the encoder with its representations scaled and shifted, each number by its own factor in [1/2, 2]."""

    def make(d: int) -> Callable[[Tensor], Tensor]:
        drawn = torch.rand(2, d, generator=_generator(seed))
        factor, offset = 4 ** (drawn[0] - 0.5), 20 * drawn[1] - 10
        return lambda x: x * factor.to(x) + offset.to(x)

    return _Output(encoder, _by_dim(make))


def pad(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Returns the encoder with as many constants (2.5) mixed into its representations, at random places."""

    def make(d: int) -> Callable[[Tensor], Tensor]:
        order = torch.randperm(2 * d, generator=_generator(seed))
        return lambda x: torch.cat([x, torch.full_like(x, 2.5)], 1)[:, order.to(x.device)]

    return _Output(encoder, _by_dim(make))


def project(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Returns the encoder with its representations projected to half as many random directions; loses information."""

    def make(d: int) -> Callable[[Tensor], Tensor]:
        q = _orthogonal(d, max(2, d // 2), seed)
        return lambda x: x @ q.to(x)

    return _Output(encoder, _by_dim(make))


def rounded(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Returns the encoder with its representations rounded to one decimal."""
    return _Output(encoder, lambda x: x.round(decimals=1))


def normalised(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Returns the encoder with its representations scaled to length 1."""
    return _Output(encoder, lambda x: F.normalize(x, dim=1))


class _Noisy(nn.Module):
    """An encoder whose answers carry a disturbance that is fixed for each image: asking again cannot tell it."""

    def __init__(self, encoder: EncoderLike, seed: int, share: float) -> None:
        super().__init__()
        self.encoder, self.seed, self.share = encoder, seed, share

    def forward(self, images: Tensor) -> Tensor:
        responses: Tensor = self.encoder(images)
        grey = F.adaptive_avg_pool2d(images.double().mean(1, keepdim=True), 16).flatten(1)  # (n, 256)
        generator = _generator(self.seed)
        mix = torch.randn(grey.shape[1], responses.shape[1], generator=generator, dtype=torch.float64)
        noise = torch.sin(40 * grey @ mix.to(grey.device)).to(responses)  # as good as random, one draw an image
        out: Tensor = responses + self.share * responses.norm(dim=1, keepdim=True) * F.normalize(noise, dim=1)
        return out


def noisy(encoder: EncoderLike, seed: int = 0, *, share: float = 0.1) -> nn.Module:
    """Returns the encoder with noise of `share` of each answer's length, the same whenever an image is asked again."""
    return _Noisy(encoder, seed, share)


def pca(encoder: EncoderLike, images: Tensor) -> nn.Module:
    """Returns the encoder with its answers projected to the leading half of their principal directions on images.

    Args:
        encoder: what to launder.
        images: `(n, c, h, w)` uint8, the thief's.
    """
    x = represent(encoder, images)
    _, _, directions = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    mean, kept = x.mean(0), directions[: max(2, x.shape[1] // 2)].T
    return _Output(encoder, lambda y: (y - mean.to(y)) @ kept.to(y))


def average(encoder: EncoderLike, other: EncoderLike) -> nn.Module:
    """Returns the mean of two encoders' answers, each scaled to length 1; the longer one is cut to the shorter."""

    class Average(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            a, b = F.normalize(encoder(images), dim=1), F.normalize(other(images), dim=1)
            d = min(a.shape[1], b.shape[1])
            return (a[:, :d] + b[:, :d]) / 2

    return Average()


def _weights(encoder: EncoderLike) -> nn.Module:
    if not isinstance(encoder, nn.Module):
        raise TrainingError("the weights of this encoder cannot be changed", "load it from weights, not from ONNX")
    return copy.deepcopy(encoder).eval()


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.ndim >= 2]


def prune(encoder: EncoderLike, seed: int = 0, *, share: float = 0.3) -> nn.Module:
    """Returns a copy with the smallest `share` of the weights of every layer set to zero (magnitude pruning)."""
    out = _weights(encoder)
    with torch.no_grad():
        for p in _matrices(out):
            count = int(share * p.numel())
            if count:
                limit = p.abs().flatten().kthvalue(count).values
                p.masked_fill_(p.abs() <= limit, 0.0)
    return out


def quantise(encoder: EncoderLike, seed: int = 0, *, bits: int = 8) -> nn.Module:
    """Returns a copy with the weights of every layer on 2^bits - 1 levels, symmetric, one scale a layer."""
    out = _weights(encoder)
    levels = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for p in _matrices(out):
            step = (p.abs().max() / levels).clamp_min(1e-12)
            p.copy_((p / step).round() * step)
    return out


def halve(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Returns a copy with its weights rounded to float16 precision."""
    out = _weights(encoder)
    with torch.no_grad():
        for p in out.parameters():
            p.copy_(p.half().float())
    return out


def fine_tune(encoder: Encoder, images: Tensor, config: TrainConfig, *, progress: Progress = silent) -> Encoder:
    """Returns a copy trained on with SimCLR on the thief's own images: the laundering that changes weights most.

    Args:
        encoder: stolen; of one of `ARCHITECTURES`.
        images: `(n, c, h, w)` uint8.
        config: passes, learning rate, views; its architecture must be the encoder's, its mark "none".
        progress: called after every step.

    Raises:
        TrainingError: if the architecture is another one, or the loss is no longer finite.
    """
    return train(images, config, start=encoder, progress=progress).encoder


OUTPUTS: dict[str, Callable[..., nn.Module]] = {
    "permute": permute,
    "rotate_basis": rotate_basis,
    "scale": scale,
    "pad": pad,
    "project": project,
    "rounded": rounded,
    "normalised": normalised,
    "noisy": noisy,
}
"""Transforms of outputs, by name."""

WEIGHTS: dict[str, Callable[..., nn.Module]] = {"prune": prune, "quantise": quantise, "halve": halve}
"""Transforms of weights, by name."""


def launder(encoder: EncoderLike, names: Sequence[str], *, seed: int = 0) -> EncoderLike:
    """Returns the encoder after the named transforms, in order; those of weights must come first.

    Raises:
        TrainingError: if a name is unknown, or a transform of weights follows one of outputs.
    """
    changed = False
    for name in names:
        if name not in OUTPUTS and name not in WEIGHTS:
            raise TrainingError(f"unknown laundering {name!r}", f"any of: {', '.join((*WEIGHTS, *OUTPUTS))}")
        if name in WEIGHTS and changed:
            raise TrainingError(f"{name} changes weights and must come before changes of outputs")
        changed = changed or name in OUTPUTS
        encoder = (OUTPUTS.get(name) or WEIGHTS[name])(encoder, seed)
    return encoder
