"""Transforms of outputs: wrappers around a surrogate that change its representations, without training.

`permute`, `rotate_basis`, `scale` and `pad` are inverted by an affine map; `project`, `rounded`, `normalized` and
`noisy` lose information. `pca` needs images, and `average` needs another encoder.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownership.encoders.images import EncoderLike, represent


class _Output(nn.Module):
    """An encoder followed by a fixed function of its representations."""

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
    """A function that is drawn once the length of a representation is known, and then fixed."""
    made: dict[int, Callable[[Tensor], Tensor]] = {}

    def change(x: Tensor) -> Tensor:
        d = x.shape[1]
        if d not in made:
            made[d] = make(d)
        return made[d](x)

    return change


def permute(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Return the encoder with the components of its representations in another order."""

    def make(d: int) -> Callable[[Tensor], Tensor]:
        order = torch.randperm(d, generator=_generator(seed))
        return lambda x: x[:, order.to(x.device)]

    return _Output(encoder, _by_dim(make))


def rotate_basis(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Return the encoder with its representations in a random orthonormal basis."""

    def make(d: int) -> Callable[[Tensor], Tensor]:
        q = _orthogonal(d, d, seed)
        return lambda x: x @ q.to(x)

    return _Output(encoder, _by_dim(make))


def scale(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Return the encoder with each component of its representations scaled by a factor in [1/2, 2] and shifted."""

    def make(d: int) -> Callable[[Tensor], Tensor]:
        drawn = torch.rand(2, d, generator=_generator(seed))
        factor, offset = 4 ** (drawn[0] - 0.5), 20 * drawn[1] - 10
        return lambda x: x * factor.to(x) + offset.to(x)

    return _Output(encoder, _by_dim(make))


def pad(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Return the encoder with d constants (2.5) inserted into its d-dimensional representations at random places."""

    def make(d: int) -> Callable[[Tensor], Tensor]:
        order = torch.randperm(2 * d, generator=_generator(seed))
        return lambda x: torch.cat([x, torch.full_like(x, 2.5)], 1)[:, order.to(x.device)]

    return _Output(encoder, _by_dim(make))


def project(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Return the encoder with its representations projected to d / 2 random directions, which loses information."""

    def make(d: int) -> Callable[[Tensor], Tensor]:
        q = _orthogonal(d, max(2, d // 2), seed)
        return lambda x: x @ q.to(x)

    return _Output(encoder, _by_dim(make))


def rounded(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Return the encoder with its representations rounded to one decimal."""
    return _Output(encoder, lambda x: x.round(decimals=1))


def normalized(encoder: EncoderLike, seed: int = 0) -> nn.Module:
    """Return the encoder with its representations scaled to length 1."""
    return _Output(encoder, lambda x: F.normalize(x, dim=1))


class _Noisy(nn.Module):
    """An encoder with noise that is a function of the image: repeated queries cannot average it away."""

    def __init__(self, encoder: EncoderLike, seed: int, fraction: float) -> None:
        super().__init__()
        self.encoder, self.seed, self.fraction = encoder, seed, fraction

    def forward(self, images: Tensor) -> Tensor:
        responses: Tensor = self.encoder(images)
        grey = F.adaptive_avg_pool2d(images.double().mean(1, keepdim=True), 16).flatten(1)  # (n, 256)
        generator = _generator(self.seed)
        mix = torch.randn(grey.shape[1], responses.shape[1], generator=generator, dtype=torch.float64)
        noise = torch.sin(40 * grey @ mix.to(grey.device)).to(responses)  # varies like one random draw an image
        out: Tensor = responses + self.fraction * responses.norm(dim=1, keepdim=True) * F.normalize(noise, dim=1)
        return out


def noisy(encoder: EncoderLike, seed: int = 0, *, fraction: float = 0.1) -> nn.Module:
    """Return the encoder with noise of `fraction` of each representation's length, the same for repeated queries."""
    return _Noisy(encoder, seed, fraction)


def pca(encoder: EncoderLike, images: Tensor) -> nn.Module:
    """Return the encoder with its representations projected to the first half of their principal components.

    Args:
        encoder: surrogate.
        images: `(n, c, h, w)` uint8 that the components are computed on.
    """
    x = represent(encoder, images)
    _, _, directions = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    mean, kept = x.mean(0), directions[: max(2, x.shape[1] // 2)].T
    return _Output(encoder, lambda y: (y - mean.to(y)) @ kept.to(y))


def average(encoder: EncoderLike, other: EncoderLike) -> nn.Module:
    """Return the mean of two encoders' representations, each scaled to length 1; the longer one is truncated."""

    class Average(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            a, b = F.normalize(encoder(images), dim=1), F.normalize(other(images), dim=1)
            d = min(a.shape[1], b.shape[1])
            return (a[:, :d] + b[:, :d]) / 2

    return Average()


OUTPUT_TRANSFORMS: dict[str, Callable[..., nn.Module]] = {
    "permute": permute,
    "rotate_basis": rotate_basis,
    "scale": scale,
    "pad": pad,
    "project": project,
    "rounded": rounded,
    "normalized": normalized,
    "noisy": noisy,
}
"""Name -> transform of outputs that needs only the encoder and a seed."""

LOSSLESS = ("permute", "rotate_basis", "scale", "pad")
"""Transforms of outputs that an affine map inverts."""
