"""The keyed watermark for any training loop: representations are taught secret functions of the image.

The targets are what the key draws (`ownership.keyed.maps`). Those of the content map are to be predicted by a linear
head. Those of the invariant map, which every encoder predicts well, are to have a set share of the representation's
variance. A surrogate that learns from the representations learns both.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownership.encoders.images import EncoderLike, as_input, represent, three_channels
from ownership.errors import TrainingError
from ownership.keyed.drawn import check_encoder
from ownership.keyed.features import EncoderSource
from ownership.keyed.key import Key
from ownership.keyed.maps import Targets
from ownership.keyed.pool import KeyMaterial
from ownership.keyed.test import KeyTestResult
from ownership.suspects.suspect import load_encoder
from watermark_training.device import seeded

View = Callable[[Tensor, torch.Generator], Tensor]
"""Images `(n, c, h, w)` float in `[0, 1]`, source of randomness on the CPU -> one view of each, of the same shape."""

FIT_IMAGES, FIT_PENALTY = 10_000, 0.1
"""`fit_head`: most images, and the ridge penalty in units of the variance of a dimension."""
SHARE = 0.28
"""Share of the representation's variance that the marked directions of the invariant map are to have together."""
SHARE_WEIGHT = 2.5
"""Weight of that loss, in units of the weight of the content map's."""


def number_of(key: Key, purpose: str) -> int:
    """Return a number of 48 bits that the key fixes for one purpose."""
    return int.from_bytes(key.randomness(purpose).bytes(6), "big")


def feature_source(material: KeyMaterial) -> EncoderSource | None:
    """Return what gives the features of training images, where a key's features are an encoder's.

    Raises:
        TrainingError: if the encoder is missing, or another one.
        SuspectError: if it cannot be loaded.
    """
    if material.key.features is None or material.features is None:
        return None
    if material.features.encoder is None:
        raise TrainingError("the key's feature encoder is missing", "give the folder of turnmark key new")
    found = load_encoder(material.features.encoder)
    if found.sha256 != material.key.features.encoder_sha256:
        raise TrainingError("this is not the feature encoder that the key was committed to", "restore the original")
    return EncoderSource(found.encoder)


class WatermarkHead(nn.Module):
    """Reads the targets of both maps from representations.

    Args:
        dim: length d of a representation.
        directions: marked directions r of each map.
        share: whether the invariant targets are read along fixed axes; otherwise a linear map reads them, too.

    Attributes:
        axes: `(d, r)` orthonormal: where in the representation the invariant targets are to be.

    Raises:
        TrainingError: if a representation is shorter than r.
    """

    axes: Tensor

    def __init__(self, dim: int, directions: int, share: bool) -> None:
        super().__init__()
        if dim < directions:
            raise TrainingError(
                f"representations of length {dim} cannot hold {directions} directions",
                "use a key with fewer (turnmark key new --directions)",
            )
        # Adam moves a linear map of small representations slowly, so they are brought to variance 1 first
        linear = nn.Linear(dim, directions if share else 2 * directions)
        self.linear = nn.Sequential(nn.BatchNorm1d(dim, affine=False), linear)
        self.register_buffer("axes", torch.linalg.qr(torch.randn(dim, directions if share else 0)).Q)

    def forward(self, representations: Tensor) -> tuple[Tensor, Tensor]:
        """Return linear predictions of the first targets, and coordinates along `axes`, `(n, r)` or `(n, 0)`.

        The coordinates are of representations with mean 0 and, on average over dimensions, variance 1.
        """
        centred = representations.float() - representations.float().mean(0)
        scale = centred.square().mean().clamp_min(1e-8).rsqrt()
        return self.linear(representations).float(), (centred * scale) @ self.axes


class KeyedWatermark(nn.Module):
    """Trains an encoder to carry a keyed watermark, beside its other training objective.

    Three lines in a training loop, and one at its end::

        watermark = KeyedWatermark(dim=512, material="key/")       # the folder of turnmark key new
        optimizer = torch.optim.Adam([*encoder.parameters(), *watermark.parameters()])
        loss = contrastive_loss + watermark(encoder, images)       # images (b, 3, h, w), float in [0, 1]; every step
        save_train_folder("victim/", encoder, train_images, watermark)

    Where one forward pass serves both losses, `views` returns images and their targets, and `loss` takes the
    representations of these images. Pass images that are not augmented.

    It works on any device, under autocast and under `torch.compile`. Of its tensors only those of the head are
    parameters or enter a state dict. With DistributedDataParallel, wrap a module whose `forward` returns the whole
    loss and which holds the watermark as a submodule, so that the gradients of the head are averaged with all others
    (docs/how-to/own-training-loop.md).

    Args:
        dim: length d of a representation.
        material: the key with its probes, or the folder that holds them.
        weight: weight of the loss; the default suits SimCLR and trainings of 1,000 steps and more. Shorter ones need
            more: 0.3 for 200 steps, 1 with half of each batch for 60.
        fraction: fraction of each batch that the loss is computed on.
        view: augmentation of the images that are shown; the targets are then those of the views. A large encoder that
            sees few images learns their targets by heart; it does not learn those of endless views. The images are
            shown as they are if not given.
        share: share of the representation's variance that the marked directions of the invariant map are to have
            together. None where an encoder's representations are to be preserved: the linear head then predicts the
            targets of both maps, which moves the representations less and is not found in surrogates that are trained
            on augmented images.

    Attributes:
        head: reads the targets from representations.
        r_squared: share of the variance of the linear head's targets that it predicts on the last batch, a scalar
            tensor. It is about 0 for an encoder that has learned nothing of them.

    Raises:
        TrainingError: if `fraction` is not in (0, 1], or representations are shorter than the key has directions.
        ClaimError: if the folder holds no key, or its files are damaged.
    """

    METRICS = ("keyed_loss", "keyed_r_squared")

    def __init__(
        self,
        dim: int,
        material: KeyMaterial | Path | str,
        *,
        weight: float = 0.1,
        fraction: float = 0.25,
        view: View | None = None,
        share: float | None = SHARE,
    ) -> None:
        super().__init__()
        if not 0 < fraction <= 1:
            raise TrainingError(f"fraction is {fraction}", "above 0, at most 1")
        self.weight, self.fraction, self.view, self.share = weight, fraction, view, share
        self.use(material if isinstance(material, KeyMaterial) else KeyMaterial.load(Path(material)))
        # equal in all processes, and the numbers that the rest of the training draws stay the same
        with seeded(torch.Generator().manual_seed(number_of(self.material.key, "head"))):
            self.head = WatermarkHead(dim, self.material.key.directions, share is not None)
        self.r_squared = torch.zeros(())
        self._generator = torch.Generator().manual_seed(secrets.randbits(63))

    def use(self, material: KeyMaterial) -> None:
        """Take the targets from this key; the head stays."""
        self.material = material
        self.targets = Targets(material, feature_source(material))

    def shown(self, batch: int) -> int:
        """Return how many images of a batch the loss is computed on: at least two, for their variance."""
        return min(batch, max(2, math.ceil(batch * self.fraction)))

    def targets_of(self, images: Tensor) -> Tensor:
        """Return the targets `(n, t)` of images `(n, c, h, w)` in `[0, 1]`, in float32 and without gradients."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            targets: Tensor = self.targets(images.float())
        return targets

    def table(self, images: Tensor) -> Tensor:
        """Return the targets `(n, t)` of uint8 images `(n, c, h, w)`, on the head's device.

        A training that shows images as they are reads them from here: they are the same in every epoch.
        """
        device = next(self.head.parameters()).device
        return torch.cat([self.targets_of(as_input(part.to(device))) for part in torch.split(images, 256)])

    def views(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return the first `fraction` of a batch, augmented by `view`, and the targets of what is shown.

        Args:
            images: `(b, c, h, w)` float in `[0, 1]`, not augmented.
            generator: source of the augmentation (CPU); the module's own if not given.

        Returns:
            Images `(k, c, h, w)` and targets `(k, t)`, k = ceil(fraction b), at least 2.
        """
        some = images[: self.shown(len(images))]
        if self.view is not None:
            some = self.view(some, generator or self._generator)
        return some, self.targets_of(some)

    def loss(self, representations: Tensor, targets: Tensor) -> Tensor:
        """Return the loss on representations `(k, d)` of what `views` shows.

        With content targets t predicted as p, and invariant targets u, batch mean 0, at coordinates v:
        weight (mean (p - t)^2 + SHARE_WEIGHT mean (v / s - u)^2), where r s^2 / d = share. Without a share the first
        term is of the targets of both maps, twice.
        """
        with torch.autocast(representations.device.type, enabled=False):
            predicted, coordinates = self.head(representations.float())
        linear, invariant = targets[:, : predicted.shape[1]], targets[:, predicted.shape[1] :]
        error = F.mse_loss(predicted, linear)
        self.r_squared = 1 - error.detach() / linear.var(0).mean().clamp_min(1e-6)
        if self.share is None:
            return self.weight * 2 * error
        s = math.sqrt(self.share * representations.shape[1] / coordinates.shape[1])
        spread = F.mse_loss(coordinates / s, invariant - invariant.mean(0))
        return self.weight * (error + SHARE_WEIGHT * spread)

    @property
    def learned(self) -> Tensor:
        """`r_squared`, by a name that all watermarks have."""
        return self.r_squared

    def trained(self) -> dict[str, nn.Module]:
        """Return the module that is trained with the encoder, by name."""
        return {"keyed_head": self.head}

    def forward(self, encoder: EncoderLike, images: Tensor) -> Tensor:
        """Return the loss on images `(b, c, h, w)` in `[0, 1]`: represent some of them, predict their targets."""
        shown, targets = self.views(images)
        return self.loss(encoder(three_channels(shown)), targets)

    def fit_head(self, encoder: EncoderLike, images: Tensor) -> None:
        """Fit the head to an encoder that is trained already.

        Retrofitting then changes the encoder from the first step on, instead of after the head has been learned. The
        linear part becomes the ridge regression of its targets; the axes those along which the invariant targets
        have the largest covariance (orthogonal Procrustes problem).

        Args:
            encoder: the encoder that training starts from.
            images: `(n, c, h, w)` uint8; of more than 10,000, evenly spaced ones are used.
        """
        some = images[:: math.ceil(len(images) / FIT_IMAGES)]
        targets = self.table(some).cpu()
        x = represent(encoder, some).double()
        x = x - x.mean(0)
        r = self.head.axes.shape[1]
        first = targets.shape[1] - r
        centred = targets.double() - targets.double().mean(0)
        scaled = x / (x.square().mean(0) + nn.BatchNorm1d(1).eps).sqrt()
        penalty = FIT_PENALTY * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        slope = torch.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ centred[:, :first])
        u, _, v = torch.linalg.svd(x.T @ centred[:, first:], full_matrices=False)
        state = {"linear.1.weight": slope.T.float(), "linear.1.bias": targets.mean(0)[:first], "axes": (u @ v).float()}
        self.head.load_state_dict(state, strict=False)

    def check(self, encoder: EncoderLike) -> KeyTestResult:
        """Return the key test of a finished encoder on the probes: what an audit finds in an exact copy."""
        return check_encoder(self.material, represent(encoder, self.material.probes).double().numpy())
