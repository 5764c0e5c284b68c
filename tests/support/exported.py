"""Files that exporters write of one untrained encoder, in the forms that suspects come in."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from support.encoders import SIDE, encoder
from torch import Tensor, nn

IMAGES = torch.rand(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
EXAMPLE = IMAGES[:2]


class Model(nn.Module):
    """`encoder(3)` with something done to its images first, and to its representation or its maps last."""

    def __init__(
        self,
        *,
        first: Callable[[Tensor], Tensor] = lambda x: x,
        last: Callable[[Tensor], Any] = lambda x: x,
        maps: bool = False,
    ) -> None:
        super().__init__()
        whole = deepcopy(encoder(3))
        self.first, self.last, self.mean, self.std = first, last, whole.mean, whole.std
        self.body = whole.body[:-2] if maps else whole.body  # type: ignore[index]

    def forward(self, images: Tensor) -> Any:
        return self.last(self.body((self.first(images) - self.mean) / self.std))


def onnx_file(model: nn.Module, example: Tensor = EXAMPLE, outputs: tuple[str, ...] = ("y",)) -> bytes:
    """Return a model as ONNX with a free batch size."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (example,),
            buffer,
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            output_names=list(outputs),
            dynamic_axes={name: {0: "n"} for name in ("images", *outputs)},
        )
    return buffer.getvalue()


def exported(model: nn.Module, *args: Any, **kwargs: Any) -> bytes:
    """Return a model as `torch.export` archive, of a fixed batch size."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model.eval(), args, kwargs), buffer)
    return buffer.getvalue()
