"""Adapt models with a fixed batch, image size, layout or type, and models that output maps or tokens, to encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ownership.errors import SuspectError
from ownership.suspects.choices import Pooling

POOLINGS = get_args(Pooling)
"""Pooling of outputs with several vectors per image. `auto` takes what the shape leaves no doubt about."""

INPUT_TYPES = (torch.float32, torch.float16, torch.float64, torch.uint8)
"""Types of images that a model may take. Images in `[0, 1]` are cast; bytes are `round(255 x)`."""


class AdaptedEncoder:
    """A model as an encoder: images `(n, 3, h, w)` float32 in `[0, 1]` -> representations `(n, d)`.

    For a model with a fixed image size, images are resized (bilinear, antialiased when they shrink), and the report
    states it. Feature maps are averaged over the image.

    Args:
        run: the model.
        batch: its fixed batch size; None for any.
        alone: whether each image is asked in a batch of its own, because an answer depends on the batch.
        size: its height and width; 0 for any.
        channels_last: whether its input is `(n, h, w, 3)`.
        dtype: type of its input, one of `INPUT_TYPES`.
        pooling: pooling of tokens and maps, one of `POOLINGS`.

    Attributes:
        choices: what was chosen where the file offers a choice: `output`, `pooling`, `batch` -> the choice in words.
            The pooling is known from the first answer on.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Tensor],
        *,
        batch: int | None = None,
        alone: bool = False,
        size: tuple[int, int] = (0, 0),
        channels_last: bool = False,
        dtype: torch.dtype = torch.float32,
        pooling: str = "auto",
    ) -> None:
        self._run, self._batch, self._alone, self.size = run, batch, alone, size
        self._channels_last, self._dtype, self._pooling = channels_last, dtype, pooling
        self.choices: dict[str, str] = {"batch": "one image at a time"} if alone else {}

    def __call__(self, images: Tensor) -> Tensor:
        """Return representations `(n, d)` of images `(n, 3, h, w)`."""
        images = in_size(images, self.size)
        square = images.shape[-2] == images.shape[-1]
        images = _as_input(images, self._dtype)
        if self._channels_last:
            images = images.permute(0, 2, 3, 1).contiguous()
        size = self._batch or (1 if self._alone else len(images))
        return torch.cat([self._ask(part, size, square) for part in torch.split(images, 1 if self._alone else size)])

    def _ask(self, images: Tensor, size: int, square: bool) -> Tensor:
        """Return the representations of at most one batch of images, filled up to its size with the first image."""
        more = size - len(images)
        answer = self._run(torch.cat([images, images[:1].expand(more, -1, -1, -1)]) if more else images)
        if answer.ndim not in (2, 3, 4):
            raise SuspectError(
                f"suspect: the output has shape {tuple(answer.shape)}, expected (n, d)",
                "export the representation, or choose another output with --onnx-output",
            )
        if len(answer) != size:
            raise SuspectError(
                f"suspect: {len(answer)} answers to {size} images", "an encoder gives one vector per image"
            )
        vectors, how = pooled(answer, self._pooling, square=square)
        if how:
            self.choices["pooling"] = how
        return vectors[: len(images)]


def in_size(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Return images `(n, 3, h, w)` in a height and a width; 0 or None: as they are."""
    if size is None or (h_w := resized(size, tuple(images.shape))) is None:
        return images
    shrinks = max(images.shape[-2:]) > min(h_w)
    return F.interpolate(images, size=h_w, mode="bilinear", antialias=shrinks)


def resized(size: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return height and width to which images `(..., h, w)` are resized; None if they have the right size."""
    wanted = (size[0] or shape[-2], size[1] or shape[-1])
    return None if wanted == tuple(shape[-2:]) else wanted


def _as_input(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Return images as the type that the model takes."""
    if dtype != torch.uint8:
        return images.to(dtype)
    if images.min() < -1e-4 or images.max() > 1 + 1e-4:  # a mean was subtracted: bytes cannot hold that
        raise SuspectError("suspect: the model takes bytes, and the preprocessing leaves [0, 1]", "--preprocess none")
    return (255 * images).round().clamp(0, 255).to(dtype)


def pooled(answer: Tensor, pooling: str, *, square: bool) -> tuple[Tensor, str]:
    """Return one vector per image, and how it was made in words ("" where nothing was).

    Args:
        answer: `(n, d)`, tokens `(n, t, d)` or `(n, d, t)`, or maps `(n, d, h, w)` or `(n, h, w, d)`.
        pooling: one of `POOLINGS`.
        square: whether the images are square, and so their maps.

    Raises:
        SuspectError: if the answer is not float, or neither its shape nor the pooling says where the vectors are.
    """
    if not answer.is_floating_point():
        raise SuspectError(f"suspect: the output is {answer.dtype}, expected float (n, d)", "export the representation")
    answer, shape = answer.float(), tuple(answer.shape[1:])
    if len(shape) == 1:
        return answer, ""
    shown = f"(n, {', '.join(map(str, shape))})"
    if sum(side > 1 for side in shape) <= 1 and (len(shape) == 3 or pooling == "auto"):
        return answer.flatten(1), f"the only vector of {shown}"
    layout = _layout(shape, pooling, square)
    if layout is None:
        raise SuspectError(
            f"suspect: the output has shape {shown}, and nothing says which axis is the representation's",
            "--pooling channels-first for (n, d, h, w), channels-last for (n, h, w, d)"
            if len(shape) == 3
            else "--pooling cls or mean for (n, tokens, d), channels-first for (n, d, positions)",
        )
    if layout == "cls":
        return answer[:, 0], f"first token of {shown}"
    over = list(range(2, answer.ndim)) if layout == "channels-first" else list(range(1, answer.ndim - 1))
    return answer.mean(over), f"mean of {shown}, {layout.replace('-', ' ')}"


def _layout(shape: tuple[int, ...], pooling: str, square: bool) -> str | None:
    """Return `cls`, `channels-first` or `channels-last` for an output `(n, *shape)`; None if that is not certain."""
    if pooling.startswith("channels-"):
        return pooling
    if len(shape) == 2:
        return {"cls": "cls", "mean": "channels-last"}.get(pooling)
    first, middle, last = shape
    if pooling == "cls" or not square or (first == middle) == (middle == last):
        return None
    return "channels-first" if middle == last else "channels-last"
