"""What an attacker has beside a surrogate, and the wrapper that all transforms of outputs return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownership.encoders.images import EncoderLike, represent
from ownership.errors import TrainingError
from ownership.io.progress import Progress, silent

Change = Callable[[Tensor], Tensor]
"""Function of representations `(n, d)`, to `(n, k)`."""

HASHED_SIDE = 16
"""Side of the gray thumbnail that hashes and projections of an image are computed from."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Attacker:
    """What an evasion may use beside the surrogate. What an evasion does not need may be missing.

    Attributes:
        images: `(n, c, h, w)` uint8, the attacker's own: means, scales and components are computed on them.
        labels: `(n,)` integers, of the images.
        encoder: makes an encoder that the attacker trained without the victim.
        checkpoint: makes the encoder that the surrogate was started from.
        probes: `(n, c, h, w)` uint8, the probes of a claim that the attacker knows, from an earlier audit.
        seed: of everything that is drawn.
        progress: called after every step of a training.
    """

    images: Tensor | None = None
    labels: Tensor | None = None
    encoder: Callable[[], EncoderLike] | None = None
    checkpoint: Callable[[], EncoderLike] | None = None
    probes: Tensor | None = None
    seed: int = 0
    progress: Progress = silent

    def own_images(self) -> Tensor:
        """Return the attacker's images, or raise TrainingError."""
        if self.images is None:
            raise TrainingError("this transform needs images of the attacker's own", "give Attacker(images=...)")
        return self.images

    def own_labels(self) -> Tensor:
        """Return the labels of the attacker's images, or raise TrainingError."""
        if self.labels is None:
            raise TrainingError("this transform needs labels of the attacker's images", "give Attacker(labels=...)")
        return self.labels

    def own_checkpoint(self) -> EncoderLike:
        """Return the encoder that the surrogate was started from, or raise TrainingError."""
        if self.checkpoint is None:
            raise TrainingError(
                "this transform needs the checkpoint that the surrogate started from", "give Attacker(checkpoint=...)"
            )
        return self.checkpoint()

    def known_probes(self) -> Tensor:
        """Return the probes that the attacker knows, or raise TrainingError."""
        if self.probes is None:
            raise TrainingError("this transform needs the probes of an earlier audit", "give Attacker(probes=...)")
        return self.probes

    def own_encoder(self) -> EncoderLike:
        """Return the attacker's own encoder, or raise TrainingError."""
        if self.encoder is None:
            raise TrainingError("this transform needs an encoder of the attacker's own", "give Attacker(encoder=...)")
        return self.encoder()

    def generator(self) -> torch.Generator:
        """Return a source of randomness that follows from the seed."""
        return torch.Generator().manual_seed(self.seed)


class Wrapped(nn.Module):
    """An encoder followed by a fixed function of its representations."""

    def __init__(self, encoder: EncoderLike, change: Change) -> None:
        super().__init__()
        self.encoder, self.change = encoder, change

    def forward(self, images: Tensor) -> Tensor:
        """Return `(n, k)` for images `(n, 3, h, w)`."""
        out: Tensor = self.change(self.encoder(images))
        return out


def by_dim(make: Callable[[int], Change]) -> Change:
    """Return a function that is drawn once the length of a representation is known, and then fixed."""
    made: dict[int, Change] = {}

    def change(x: Tensor) -> Tensor:
        d = x.shape[1]
        if d not in made:
            made[d] = make(d)
        return made[d](x)

    return change


def orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Return a random matrix `(rows, columns)` with orthonormal columns, or rows if there are fewer of them."""
    q, r = torch.linalg.qr(torch.randn(max(rows, columns), min(rows, columns), generator=generator))
    signed: Tensor = q * torch.sign(torch.diagonal(r))
    return signed if rows >= columns else signed.T


def spread(x: Tensor) -> Tensor:
    """Return the root of the mean variance of the columns of `(n, d)`, a scalar above 0."""
    return (x - x.mean(0)).square().mean().sqrt().clamp_min(1e-12)


def standardizer(encoder: EncoderLike, images: Tensor) -> Change:
    """Return the map to mean 0 and mean variance 1 over images; directions keep their proportions."""
    x = represent(encoder, images)
    mean, scale = x.mean(0), spread(x)
    return lambda y: (y - mean.to(y)) / scale.to(y)


def thumbnail(images: Tensor) -> Tensor:
    """Return gray thumbnails of images `(n, 3, h, w)`, as float64 `(n, HASHED_SIDE ** 2)`."""
    return F.adaptive_avg_pool2d(images.mean(1, keepdim=True), HASHED_SIDE).flatten(1).double()


def hashed(count: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Return a function from images `(n, 3, h, w)` to numbers in [-1, 1], `(n, count)`, that vary like random draws.

    The same image has the same numbers: repeated queries cannot average them away.
    """
    mix = torch.randn(HASHED_SIDE**2, count, generator=generator, dtype=torch.float64)
    return lambda images: torch.sin(40 * thumbnail(images) @ mix.to(images.device))
