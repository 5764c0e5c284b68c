"""What an encoder learns beside the watermark: a contrastive objective, or the preservation of its own features."""

from __future__ import annotations

import copy
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from ownership.encoders.architectures import Encoder
from ownership.encoders.images import beside
from ownership.encoders.projection import projection_head
from ownership.watermark import TURN, rotate
from watermark_training.augment import crop_view, simclr_view
from watermark_training.config import TrainConfig
from watermark_training.distributed import gathered
from watermark_training.losses import barlow_loss, feature_preservation_loss, nt_xent_loss, simsiam_loss


class Objective(Protocol):
    """One training method, with the modules that it trains beside the encoder."""

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Return the views of images `(b, c, h, w)` in `[0, 1]` that the encoder represents."""

    def loss(self, representations: Tensor, shown: Tensor) -> Tensor:
        """Return the loss of the concatenated views `shown` with their representations `(n, d)`."""

    def modules(self) -> dict[str, nn.Module]:
        """Return the modules that are trained with the encoder, by name."""


class Contrastive:
    """SimCLR, SimSiam or Barlow Twins on two augmented views of every image (`config.method`).

    SimCLR's projection head is Linear(d, d) - ReLU - Linear(d, out) without normalization (the paper's released code).
    SimSiam and Barlow Twins have BatchNorm after the first layer. SimSiam's prediction head has a bottleneck of
    out / 4 (Chen and He 2021).
    """

    def __init__(self, config: TrainConfig, dim: int) -> None:
        out = config.projection_dim
        self.config = config
        self.prediction: nn.Module | None = None
        if config.method == "simclr":
            self.head = projection_head(dim, dim, out)
        else:
            self.head = projection_head(dim, 2 * out, out, normalised=True)
        if config.method == "simsiam":
            self.prediction = projection_head(out, max(2, out // 4), out, normalised=True)

    def modules(self) -> dict[str, nn.Module]:
        """Return the projection head and, for SimSiam, the prediction head."""
        return {"head": self.head} | ({} if self.prediction is None else {"prediction": self.prediction})

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Return two augmented views of each image."""
        return [self._view(images, generator) for _ in range(2)]

    def _view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        x = simclr_view(images, generator, min_crop=self.config.min_crop, flip=self.config.flip)
        if not self.config.rotate:
            return x
        angles = torch.rand(len(x), generator=generator) * TURN
        return rotate(x, beside(angles, x))

    def loss(self, representations: Tensor, shown: Tensor) -> Tensor:
        """Return the method's loss on the projections."""
        first, second = self.head(representations).float().chunk(2)
        with torch.autocast(first.device.type, enabled=False):  # similarities need float32
            if self.config.method != "simsiam":  # these losses compare images with each other: those of all processes
                first, second = gathered(first), gathered(second)
            if self.config.method == "barlow":
                return barlow_loss(first, second)
            if self.prediction is not None:
                return simsiam_loss(first, second, self.prediction)
            return nt_xent_loss(first, second, self.config.temperature)


class FeaturePreservation:
    """Preservation of the representations of unrotated images, for the method "embed".

    Classifiers that were fitted to the encoder before keep working. With `config.keyed_views`, the images are
    cropped at random: few images then stand for many.
    """

    def __init__(self, config: TrainConfig, encoder: Encoder) -> None:
        self.view = partial(crop_view, flip=config.flip) if config.keyed_views else None
        self.before = copy.deepcopy(encoder).eval().requires_grad_(False)

    def modules(self) -> dict[str, nn.Module]:
        """Return no modules: only the encoder is trained."""
        return {}

    def views(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Return the images, or crops of them."""
        return [images if self.view is None else self.view(images, generator)]

    def loss(self, representations: Tensor, shown: Tensor) -> Tensor:
        """Return how far the representations have moved."""
        with torch.no_grad():
            before = self.before(shown)
        return feature_preservation_loss(representations.float(), before.float())
