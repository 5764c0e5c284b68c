"""Feature maps of the keyed watermark: secret functions from images to uncorrelated numbers.

A map says *what* of an image the watermark is about. It is built of a random network whose weights follow from the key,
so an attacker without the key cannot look for the marked directions. It is calibrated on the probes.

- `content`: what lies where in the unrotated image.
- `invariant`: what rotating the image leaves unchanged, for surrogates that are trained on rotated or augmented images
  (`ownership.keyed.features`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import Tensor, nn

from ownership.encoders.images import as_input, three_channels
from ownership.errors import ClaimError
from ownership.keyed.features import FeatureSource, over_rotations
from ownership.keyed.pool import KeyMaterial

SIDE = 32
"""Larger images are first reduced to this side, so that the cost does not grow with the image."""
WIDTHS = (3, 32, 64, 64)
GRID = 3
"""Cells a side in which the content map pools."""
LEAST_CONTRAST = 0.05
"""Added to an image's standard deviation before the invariant map divides by it."""
MOST_FEATURES = {"content": 64, "invariant": 32}
"""Largest number D of features of each map; with n probes it is at most n / 8."""

Array = NDArray[np.float64]


def feature_count(name: str, n_probes: int) -> int:
    """Return the number D of features of a map that is calibrated on `n_probes` probes."""
    return min(MOST_FEATURES[name], n_probes // 8)


def _reduced(images: Tensor) -> Tensor:
    """Return images with three channels and sides of at most `SIDE`."""
    x = three_channels(images.float())
    return F.adaptive_avg_pool2d(x, SIDE) if max(x.shape[-2:]) > SIDE else x


class RandomNetwork(nn.Module):
    """Three convolutions with ReLU, their weights drawn from a stream of random numbers (Kaiming initialization).

    Args:
        random: the stream.
    """

    def __init__(self, random: RandomState) -> None:
        super().__init__()
        for i, ((a, b), size) in enumerate(zip(pairwise(WIDTHS), (5, 3, 3), strict=True)):
            weight = random.standard_normal((b, a, size, size)) * math.sqrt(2 / (a * size * size))
            self.register_buffer(f"weight_{i}", torch.from_numpy(weight.astype(np.float32)), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return feature planes `(n, 64, h / 4, w / 4)` of images `(n, 1 or 3, h, w)` in `[0, 1]`."""
        x = _reduced(images)
        for i, stride in enumerate((2, 2, 1)):
            weight = self.get_buffer(f"weight_{i}")
            x = F.relu(F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2))
        return x


class Affine(nn.Module):
    """x -> (x - mean) @ matrix.

    Args:
        mean: `(c,)`.
        matrix: `(c, d)`.
    """

    def __init__(self, mean: Array, matrix: Array) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean).float(), persistent=False)
        self.register_buffer("matrix", torch.from_numpy(matrix).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(n, d)` of `(n, c)`."""
        return (x - self.get_buffer("mean")) @ self.get_buffer("matrix")


def whitening(x: Array, first: int, count: int) -> Affine:
    """Return the map to principal components `first` to `first + count` of x, scaled to variance 1 on x.

    Signs are fixed (the largest loading is positive), so that another linear algebra library gives the same map.

    Args:
        x: `(n, c)`, n > first + count.
        first: leading components that are left out.
        count: components that are kept.

    Raises:
        ClaimError: If x has fewer directions.
    """
    mean = x.mean(0)
    _, s, vt = np.linalg.svd(x - mean, full_matrices=False)
    if len(s) < first + count or not s[first + count - 1] > 1e-6 * s[0]:
        raise ClaimError("key: the probes are too few or too alike for its feature maps", "use more varied images")
    loadings = vt[first : first + count].T
    signs = np.sign(loadings[np.abs(loadings).argmax(0), np.arange(count)])
    return Affine(mean, loadings * signs * math.sqrt(len(x)) / s[first : first + count])


class ContentMap(nn.Module):
    """Features of a random network, pooled in 3 x 3 cells, whitened, without the leading directions.

    Leading directions are brightness, size and pose: every encoder knows them, so they can carry no watermark.

    Args:
        random: draws the network.
        probes: `(n, c, h, w)` uint8, on which the map is calibrated.
    """

    def __init__(self, random: RandomState, probes: Tensor) -> None:
        super().__init__()
        self.network = RandomNetwork(random)
        count = feature_count("content", len(probes))
        self.whiten = whitening(on_probes(probes, self.pooled), count // 8, count)

    def pooled(self, images: Tensor) -> Tensor:
        """Return the raw features `(n, 576)`."""
        return F.adaptive_avg_pool2d(self.network(images), GRID).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Return features `(n, D)` of float images in `[0, 1]`, uncorrelated and of variance 1 on the probes."""
        out: Tensor = self.whiten(self.pooled(images))
        return out


class NetworkSource(nn.Module):
    """Features of a random network, of images brought to one contrast, for the invariant map.

    Args:
        random: draws the network.
    """

    def __init__(self, random: RandomState) -> None:
        super().__init__()
        self.network = RandomNetwork(random)

    def forward(self, images: Tensor) -> Tensor:
        """Return features `(n, 2, 128)` of images `(n, c, h, w)` in `[0, 1]`."""
        return over_rotations(_reduced(images), self.pooled)

    def pooled(self, images: Tensor) -> Tensor:
        """Return mean and root mean square of each plane, `(n, 128)`."""
        mean, contrast = images.mean((1, 2, 3), keepdim=True), images.std((1, 2, 3), keepdim=True)
        planes = self.network((images - mean) / (contrast + LEAST_CONTRAST))
        return torch.cat([planes.mean((2, 3)), planes.square().mean((2, 3)).sqrt()], 1)


class InvariantMap(nn.Module):
    """Leading directions of what rotating the image leaves unchanged, whitened.

    Every encoder represents the leading directions of such averages, so that they are predicted says nothing. What the
    watermark sets is how much of the representation's variance the marked directions have (docs/adr/0034). The first
    direction is left out: it is how much there is to see.

    Args:
        rows: `(n, 2, k)`, the features of the probes, on which the map is calibrated.
        source: gives the features of other images; None where there are only the probes.

    Attributes:
        rows: the features of the probes, float64.

    Raises:
        ClaimError: If there are too few features, or the probes are too much alike.
    """

    def __init__(self, rows: Array, source: FeatureSource | None) -> None:
        super().__init__()
        self.rows = rows
        self.source = source
        count = feature_count("invariant", len(rows))
        if rows.shape[2] <= count:
            raise ClaimError(
                f"the feature encoder gives {rows.shape[2]} numbers an image",
                f"choose one that gives more than {count}",
            )
        self.whiten = whitening(rows[:, 1], 1, count)

    def forward(self, images: Tensor) -> Tensor:
        """Return features `(n, D)` of float images in `[0, 1]`, uncorrelated and of variance 1 on the probes.

        Raises:
            ClaimError: If the features are an encoder's, and the encoder is not there.
        """
        if self.source is None:
            raise ClaimError("the encoder that the key's features come from is needed", "give the folder of the key")
        out: Tensor = self.whiten(self.source(images)[:, 1])
        return out

    def on_probes(self) -> Array:
        """Return the features of the probes, `(n, D)`."""
        whitened: Tensor = self.whiten(torch.from_numpy(self.rows[:, 1]).float())
        return whitened.double().numpy()


def on_probes(probes: Tensor, features: Callable[[Tensor], Tensor]) -> Array:
    """Return features of uint8 probes in float64, computed in batches without gradients."""
    with torch.no_grad():
        return np.concatenate([features(as_input(part)).double().numpy() for part in torch.split(probes, 256)])


MAPS = ("content", "invariant")


class Targets(nn.Module):
    """What an encoder is taught, and what a suspect is tested on: the features of every map, and the marked directions.

    Its buffers are secret and follow from the key, so no state dict holds them.

    Args:
        material: the secret key, with what it draws.
        source: gives the features of further images, where the key's features are an encoder's
            (`ownership.keyed.features.EncoderSource`); without it, only the probes have targets.

    Attributes:
        names: the maps, in order.
        invariant: the invariant map.

    Raises:
        ClaimError: If the probes are not so many of the shape that the key draws, or too much alike.
    """

    invariant: InvariantMap

    def __init__(self, material: KeyMaterial, source: FeatureSource | None = None) -> None:
        super().__init__()
        key, probes = material.key, material.probes
        if tuple(probes.shape) != (key.probes, *key.pool.shape):
            raise ClaimError(
                f"key: probes of shape {tuple(probes.shape)}, it draws {(key.probes, *key.pool.shape)}",
                "use the images that the key was made for",
            )
        self.names = MAPS
        self.content = ContentMap(key.randomness("map content"), probes)
        if material.features is None:
            network = NetworkSource(key.randomness("map invariant"))
            self.invariant = InvariantMap(on_probes(probes, network), network)
        else:
            self.invariant = InvariantMap(material.features.rows.double().numpy(), source)
        self._frames: dict[str, Array] = {
            name: key.randomness(f"frame {name}").standard_normal((feature_count(name, len(probes)), key.directions))
            for name in MAPS
        }
        for name, frame in self._frames.items():  # in float32, the only precision of some devices
            directions = F.normalize(torch.from_numpy(frame).float(), dim=0)
            self.register_buffer(f"directions_{name}", directions, persistent=False)
        self._probes = probes
        self.requires_grad_(False)

    def frame(self, name: str) -> Array:
        """Return the key's frame of a map, `(D, r)` float64: independent standard normal numbers."""
        return self._frames[name]

    def features(self) -> dict[str, Array]:
        """Return the features of the probes by each map, `(n, D)` float64."""
        return {"content": on_probes(self._probes, self.content), "invariant": self.invariant.on_probes()}

    def forward(self, images: Tensor) -> Tensor:
        """Return the targets of float images in `[0, 1]`, `(n, maps r)`: one column a marked direction, variance 1."""
        maps: tuple[nn.Module, ...] = (self.content, self.invariant)
        return torch.cat([m(images) @ self.get_buffer(f"directions_{n}") for n, m in zip(MAPS, maps, strict=True)], 1)
