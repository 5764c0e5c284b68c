"""The batched augmentations: each operation against torchvision's, and their ranges."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from watermark_training.augment import _blur, _crop_and_flip, _gray, _shift_hue, simclr_view


def _images(c: int = 3, n: int = 6) -> torch.Tensor:
    return torch.rand(n, c, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
def test_views_keep_shape_and_range_and_differ(channels: int) -> None:
    x = _images(channels)
    g = torch.Generator().manual_seed(1)
    a, b = simclr_view(x, g), simclr_view(x, g)
    assert a.shape == x.shape
    assert a.min() >= 0
    assert a.max() <= 1
    assert not torch.allclose(a, b)
    torch.testing.assert_close(a, simclr_view(x, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("shift", [-0.2, 0.0, 0.15])
def test_hue_is_torchvisions(shift: float) -> None:
    x = _images()
    torch.testing.assert_close(_shift_hue(x, torch.full((6,), shift)), tv.adjust_hue(x, shift), atol=1e-4, rtol=0)


def test_grey_is_torchvisions() -> None:
    x = _images()
    torch.testing.assert_close(_gray(x), tv.rgb_to_grayscale(x, 1), atol=1e-3, rtol=0)


def test_blur_is_torchvisions_kernel() -> None:
    x = _images()
    sigma = torch.empty(6).uniform_(0.1, 2.0, generator=torch.Generator().manual_seed(2))
    ours = _blur(x, torch.Generator().manual_seed(2))
    for i in range(6):
        theirs = tv.gaussian_blur(x[i : i + 1], [3, 3], [float(sigma[i])] * 2)
        torch.testing.assert_close(ours[i : i + 1], theirs, atol=1e-5, rtol=0)


def test_a_crop_of_everything_is_the_image_or_its_mirror() -> None:
    x = _images(n=40)
    out = _crop_and_flip(x, torch.Generator().manual_seed(3), 1.0, True)
    # ratio 3/4..4/3 of the full area still cuts one side a little; the mean of many images stays near
    mirrored = sum(float((o - i.flip(-1)).abs().mean() < (o - i).abs().mean()) for o, i in zip(out, x, strict=True))
    assert 8 < mirrored < 32
