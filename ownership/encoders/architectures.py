"""The encoder architectures that weights alone can be loaded into: a plain dict, `ARCHITECTURES`, and `backbones`.

Every entry makes an `Encoder`: images `(n, 3, h, w)` float32 in `[0, 1]` -> representations `(n, d)` float32.
The residual networks are the CIFAR variants of the paper (3x3 first convolution, stride 1, no max-pooling, average
pooling to the representation; appendix F), so any image size from 8 pixels up is accepted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from itertools import pairwise

import torch
from torch import Tensor, nn

from ownership.encoders.backbones import backbones, is_backbone, make_backbone


class Encoder(nn.Module):
    """A network together with its preprocessing, so that a file of weights is a whole encoder.

    Args:
        body: maps normalised images `(n, 3, h, w)` to representations `(n, dim)`.
        dim: length of a representation.
        mean: subtracted from the `[0, 1]` images, of all channels or one each.
        std: standard deviation the difference is divided by, likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, body: nn.Module, dim: int, mean: float | Sequence[float] = 0.5, std: float | Sequence[float] = 0.25
    ) -> None:
        super().__init__()
        self.body = body
        self.dim = dim
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(value).reshape(1, -1, 1, 1).expand(1, 3, 1, 1).clone())

    def forward(self, images: Tensor) -> Tensor:
        """Return representations `(n, dim)` of images `(n, 3, h, w)` in `[0, 1]`."""
        out: Tensor = self.body((images - self.mean) / self.std)
        return out


class _Block(nn.Module):
    """Two 3x3 convolutions with a shortcut (ResNet basic block, arXiv:1512.03385)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a shortcut (ResNet bottleneck, arXiv:1512.03385), expansion 4."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != out:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        return torch.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


def _resnet(
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    block: type[_Block] | type[_Bottleneck] = _Block,
    *,
    first_stride: int = 1,
) -> Encoder:
    """A residual network for small images; the stem and every later stage double or keep the width as given."""
    expansion = 4 if block is _Bottleneck else 1
    layers: list[nn.Module] = [
        nn.Conv2d(3, widths[0], 3, first_stride, 1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    width_in = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for i in range(depth):
            layers.append(block(width_in, width, 2 if i == 0 and stage > 0 else 1))
            width_in = width * expansion
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return Encoder(nn.Sequential(*layers), width_in)


def _vgg(widths: tuple[int, ...]) -> Encoder:
    """Plain convolutions without shortcuts, so that an encoder of another family is at hand."""
    layers: list[nn.Module] = []
    width_in = 3
    for width in widths:
        layers += [nn.Conv2d(width_in, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        width_in = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return Encoder(nn.Sequential(*layers), width_in)


class _Separable(nn.Module):
    """Depthwise 3x3 and pointwise convolution, with a shortcut where shapes allow (MobileNet's building block)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width_in, width_in, 3, stride, 1, groups=width_in, bias=False)
        self.bn1 = nn.BatchNorm2d(width_in)
        self.pointwise = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.residual = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.depthwise(x)))
        out = torch.relu(self.bn2(self.pointwise(out)))
        return out + x if self.residual else out


def _mobilenet(widths: tuple[int, ...]) -> Encoder:
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    for a, b in pairwise(widths):
        layers += [_Separable(a, b, 2), _Separable(b, b, 1)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return Encoder(nn.Sequential(*layers), widths[-1])


class _Transformer(nn.Module):
    """A small vision transformer: patches, fixed sine positions, pre-norm layers, mean over tokens."""

    def __init__(self, dim: int, depth: int, heads: int, patch: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, patch)
        layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        x = x + _sine_positions(x.shape[1], x.shape[2], x.shape[3], x.device).to(x.dtype)
        out: Tensor = self.norm(self.layers(x.flatten(2).transpose(1, 2)).mean(1))
        return out


def _sine_positions(dim: int, h: int, w: int, device: torch.device) -> Tensor:
    """Two-dimensional sine and cosine positions `(dim, h, w)` (Vaswani et al. 2017, a quarter of dim each)."""
    speed = torch.exp(torch.arange(dim // 4, device=device) * (-math.log(100.0) / (dim // 4)))
    rows = speed[:, None, None] * torch.arange(h, device=device)[None, :, None].expand(-1, h, w)
    columns = speed[:, None, None] * torch.arange(w, device=device)[None, None, :].expand(-1, h, w)
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()])


ARCHITECTURES: dict[str, Callable[[], Encoder]] = {
    "tiny": lambda: _resnet((16, 32, 64), (1, 1, 1), first_stride=2),  # d = 64, 77 k parameters: digits
    "small": lambda: _resnet((32, 64, 128), (1, 1, 1), first_stride=2),  # d = 128, 0.3 M parameters: Fashion-MNIST
    "small_vgg": lambda: _vgg((32, 64, 128)),  # d = 128, 93 k parameters
    "small_wide": lambda: _resnet((48, 96, 192), (1, 1, 1), first_stride=2),  # d = 192, 0.7 M parameters
    "small_deep": lambda: _resnet((32, 64, 128), (2, 2, 2), first_stride=2),  # d = 128, 0.7 M parameters
    "small_mobilenet": lambda: _mobilenet((32, 64, 128)),  # d = 128, 40 k parameters
    "small_vit": lambda: Encoder(_Transformer(128, 3, 4, 4), 128),  # d = 128, 0.4 M parameters, patches of 4 x 4
    "resnet18": lambda: _resnet((64, 128, 256, 512), (2, 2, 2, 2)),  # d = 512, the paper's CIFAR victim
    "resnet34": lambda: _resnet((64, 128, 256, 512), (3, 4, 6, 3)),  # d = 512, appendix F
    "resnet50": lambda: _resnet((64, 128, 256, 512), (3, 4, 6, 3), _Bottleneck),  # d = 2048
}
"""Name -> function that makes a freshly initialised `Encoder`."""


CUSTOM = "custom"
"""The architecture of an encoder that only its ONNX form can be loaded from: the user's own module."""


def known_architectures(wrong: str = "") -> str:
    """Return the names that `make_encoder` takes, for messages; before them the one that resembles a wrong name."""
    near = get_close_matches(wrong[:100], sorted({*ARCHITECTURES, *backbones(wrong.partition(":")[0])}), n=1)
    known = f"one of: {', '.join(ARCHITECTURES)}, torchvision:MODEL, timm:MODEL"
    return f"did you mean {near[0]}? {known}" if near else known


def is_architecture(name: str) -> bool:
    """Return whether `make_encoder` takes a name."""
    return name in ARCHITECTURES or is_backbone(name)


def make_encoder(name: str) -> Encoder:
    """Return a freshly initialised encoder by name: in `ARCHITECTURES`, `torchvision:MODEL` or `timm:MODEL`.

    Raises:
        KeyError: if there is no such name; ask `is_architecture` first.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]()
    if not is_backbone(name):
        raise KeyError(name)
    return Encoder(*make_backbone(name))
