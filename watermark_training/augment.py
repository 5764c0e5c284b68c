"""The paper's SimCLR augmentations, drawn for a whole batch at once on the device the images are on.

Distribution: released code of the paper (random resized crop, horizontal flip, color jitter (0.8, 0.8, 0.8, 0.2) with
p = 0.8, grayscale with p = 0.2, 3x3 Gaussian blur with sigma in [0.1, 2]; Chen et al. 2020, appendix A). Other
than in torchvision's per-image transforms, the order of the four color operations is drawn once a batch, and the crop
is resampled bilinearly without antialiasing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ownership.encoders.images import beside

JITTER = (0.8, 0.8, 0.8, 0.2)  # brightness, contrast, saturation, hue


def simclr_view(images: Tensor, generator: torch.Generator, *, min_crop: float = 0.08, flip: bool = True) -> Tensor:
    """Return one randomly augmented view of each image.

    Args:
        images: `(n, c, h, w)` float32 in `[0, 1]`, c = 1 (color operations are skipped) or 3.
        generator: source of randomness, on the CPU, so that all devices draw the same.
        min_crop: smallest fraction of the image area that a crop keeps.
        flip: whether images may be mirrored left to right.

    Returns:
        `(n, c, h, w)` float32 in `[0, 1]`.
    """
    x = _crop_and_flip(images, generator, min_crop, flip)
    x = _color_jitter(x, generator)
    return _blur(x, generator).clamp(0, 1)


def color_view(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return one view of each image that keeps its layout: mirrored or not, colors jittered, grayscale or not.

    The views of StolenEncoder's released code, with color jitter (0.4, 0.4, 0.4, 0.1). Arguments and result are those
    of `simclr_view`.
    """
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    x = torch.where(beside(mirrored, images).view(-1, 1, 1, 1), images.flip(-1), images)
    return _color_jitter(x, generator, (0.4, 0.4, 0.4, 0.1)).clamp(0, 1)


def crop_view(images: Tensor, generator: torch.Generator, *, min_crop: float = 0.5, flip: bool = True) -> Tensor:
    """Return one random crop of each image, mirrored or not, in its own colors; arguments as in `simclr_view`."""
    return _crop_and_flip(images, generator, min_crop, flip).clamp(0, 1)


def fixed_view(min_crop: float, flip: bool) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Return `simclr_view` with these arguments fixed."""

    def view(images: Tensor, generator: torch.Generator) -> Tensor:
        return simclr_view(images, generator, min_crop=min_crop, flip=flip)

    return view


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.empty(n).uniform_(low, high, generator=generator)


def _crop_and_flip(x: Tensor, generator: torch.Generator, min_crop: float, flip: bool) -> Tensor:
    """Random resized crop, with log-uniform aspect ratio in [3/4, 4/3], and mirroring, in one resampling."""
    n = len(x)
    area = _uniform(n, min_crop, 1, generator)
    ratio = _uniform(n, math.log(3 / 4), math.log(4 / 3), generator).exp()
    scale_w = (area * ratio).sqrt().clamp(max=1)
    scale_h = (area / ratio).sqrt().clamp(max=1)
    shift_x = _uniform(n, -1, 1, generator) * (1 - scale_w)
    shift_y = _uniform(n, -1, 1, generator) * (1 - scale_h)
    mirrored = torch.rand(n, generator=generator) < 0.5
    if flip:
        scale_w = torch.where(mirrored, -scale_w, scale_w)
    zero = torch.zeros(n)
    theta = torch.stack([torch.stack([scale_w, zero, shift_x], 1), torch.stack([zero, scale_h, shift_y], 1)], 1)
    grid = F.affine_grid(beside(theta, x), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


@lru_cache(maxsize=8)
def _luma(device: torch.device) -> Tensor:
    """The channels' weights in grayscale, copied to a device once: every copy would wait for the device."""
    return torch.tensor([0.299, 0.587, 0.114], device=device).view(1, 3, 1, 1)


def _gray(x: Tensor) -> Tensor:
    return x if x.shape[1] == 1 else (x * _luma(x.device)).sum(1, keepdim=True)


def _color_jitter(x: Tensor, generator: torch.Generator, jitter: tuple[float, float, float, float] = JITTER) -> Tensor:
    """Brightness, contrast, saturation and hue in an order drawn once a batch; then grayscale with p = 0.2."""
    n = len(x)
    jittered = torch.rand(n, generator=generator) < 0.8
    one = torch.ones(n)

    def factor(strength: float) -> Tensor:
        drawn = _uniform(n, max(0.0, 1 - strength), 1 + strength, generator)
        return torch.where(jittered, drawn, one)

    factors = [factor(s) for s in jitter[:3]]
    factors.append(torch.where(jittered, _uniform(n, -jitter[3], jitter[3], generator), 0 * one))
    order = torch.randperm(4, generator=generator).tolist()
    factors.append(torch.rand(n, generator=generator))
    brightness, contrast, saturation, hue, gray_if = beside(torch.stack(factors), x).view(5, n, 1, 1, 1).unbind()
    for operation in order:
        if operation == 0:
            x = x * brightness
        elif operation == 1:
            mean = _gray(x).mean((1, 2, 3), keepdim=True)
            x = (x - mean) * contrast + mean
        elif operation == 2 and x.shape[1] == 3:
            gray = _gray(x)
            x = (x - gray) * saturation + gray
        elif operation == 3 and x.shape[1] == 3:
            x = _shift_hue(x, hue.view(n))
        x = x.clamp(0, 1)
    return torch.where(gray_if < 0.2, _gray(x), x) if x.shape[1] == 3 else x


def _shift_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue of RGB images `(n, 3, h, w)` by `shift` `(n,)` full circles, through HSV."""
    value, _ = x.max(1)
    spread = value - x.min(1).values
    safe = spread.clamp_min(1e-8)
    r, g, b = x.unbind(1)
    hue = torch.where(value == r, ((g - b) / safe) % 6, torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4))
    hue = hue + 6 * shift.view(-1, 1, 1)

    def channel(offset: float) -> Tensor:
        k = (offset + hue) % 6
        return value - spread * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], 1)


def _blur(x: Tensor, generator: torch.Generator) -> Tensor:
    """3x3 Gaussian blur, with sigma uniform in [0.1, 2] for each image."""
    n = len(x)
    sigma = _uniform(n, 0.1, 2.0, generator)
    side = torch.exp(-0.5 / sigma**2)
    kernel = torch.stack([side / (1 + 2 * side), 1 / (1 + 2 * side)])
    edge, center = beside(kernel, x).view(2, n, 1, 1, 1).unbind()
    p = F.pad(x, (1, 1, 1, 1), mode="reflect")
    rows = edge * (p[:, :, :-2] + p[:, :, 2:]) + center * p[:, :, 1:-1]
    return edge * (rows[..., :-2] + rows[..., 2:]) + center * rows[..., 1:-1]
