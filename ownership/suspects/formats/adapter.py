"""Adapt models with a fixed batch, image size or layout, and models that output maps or tokens, to encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ownership.errors import SuspectError
from ownership.suspects.choices import Pooling

POOLINGS = get_args(Pooling)
"""Pooling of outputs with one vector per token: the first token, or the mean over tokens."""


class AdaptedEncoder:
    """A model as an encoder: images `(n, 3, h, w)` float32 in `[0, 1]` -> representations `(n, d)`.

    For a model with a fixed image size, images are resized (bilinear, antialiased when they shrink), and the report
    states it. Feature maps are averaged over the image.

    Args:
        run: the model.
        batch: its fixed batch size; None for any.
        size: its height and width; 0 for any.
        channels_last: whether its input is `(n, h, w, 3)`.
        pooling: pooling of tokens, one of `POOLINGS`.
    """

    def __init__(
        self,
        run: Callable[[Tensor], Tensor],
        *,
        batch: int | None = None,
        size: tuple[int, int] = (0, 0),
        channels_last: bool = False,
        pooling: str = "cls",
    ) -> None:
        self._run, self._batch, self.size = run, batch, size
        self._channels_last, self._pooling = channels_last, pooling

    def __call__(self, images: Tensor) -> Tensor:
        """Return representations `(n, d)` of images `(n, 3, h, w)`."""
        images = in_size(images, self.size)
        if self._channels_last:
            images = images.permute(0, 2, 3, 1).contiguous()
        size = self._batch or len(images)
        parts = []
        for chunk in torch.split(images, size):
            padded = torch.cat([chunk, chunk[:1].expand(size - len(chunk), -1, -1, -1)]) if len(chunk) < size else chunk
            answer = self._run(padded)
            if len(answer) != size:
                raise SuspectError(
                    f"suspect: {len(answer)} answers to {size} images", "an encoder gives one vector per image"
                )
            parts.append(pooled(answer, self._pooling, channels_last=self._channels_last)[: len(chunk)])
        return torch.cat(parts)


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


def pooled(answer: Tensor, pooling: str, *, channels_last: bool = False) -> Tensor:
    """Return one vector per image, of an output `(n, d)`, tokens `(n, t, d)` or maps `(n, d, h, w)`, `(n, h, w, d)`."""
    if not answer.is_floating_point():
        raise SuspectError(f"suspect: the output is {answer.dtype}, expected float (n, d)", "export the representation")
    if answer.ndim == 3:
        return answer[:, 0] if pooling == "cls" else answer.mean(1)
    if answer.ndim == 4:
        return answer.mean((1, 2)) if channels_last else answer.mean((2, 3))
    if answer.ndim != 2:
        raise SuspectError(
            f"suspect: the output has shape {tuple(answer.shape)}, expected (n, d)", "choose another with --onnx-output"
        )
    return answer
