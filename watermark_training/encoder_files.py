"""An encoder as bytes: its weights as safetensors, and its graph as ONNX."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from ownership.encoders.architectures import Encoder
from ownership.errors import TrainingError
from ownership.io.extras import require
from ownership.io.files import write_bytes
from ownership.io.text import printable

WEIGHTS, ONNX = "encoder.safetensors", "encoder.onnx"


def weights_bytes(encoder: Encoder, arch: str) -> bytes:
    """Return an encoder's weights as safetensors with the name of its architecture in the header."""
    return save({k: v.contiguous() for k, v in encoder.state_dict().items()}, metadata={"architecture": arch})


def onnx_bytes(encoder: nn.Module, image_shape: tuple[int, int]) -> bytes:
    """Return an encoder as ONNX: input `images` `(n, 3, h, w)` in `[0, 1]`, output `representations` `(n, d)`.

    Args:
        encoder: in eval mode, on the CPU.
        image_shape: (h, w) of the input; the batch size stays free.

    Raises:
        OwnershipError: if the exporter is not installed.
        TrainingError: if it fails.
    """
    require("onnxscript")
    example = torch.zeros(2, 3, *image_shape)
    with torch.no_grad():
        encoder.eval()(example)  # what a module draws at its first call cannot be exported
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():  # torch.onnx warns about its own internals (pytree, copyreg, axis names)
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                encoder,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=["representations"],
                dynamic_shapes={"images": {0: torch.export.Dim("n")}},
            )
    except Exception as e:  # the exporter raises errors of many modules
        raise TrainingError(
            f"the encoder cannot be exported to ONNX ({printable(e)})", "use the safetensors form"
        ) from e
    finally:
        logger.setLevel(level)
    if program is None:
        raise TrainingError("the encoder cannot be exported to ONNX", "use the safetensors form")
    return bytes(program.model_proto.SerializeToString())


def save_encoder(encoder: Encoder, arch: str, folder: Path, *, onnx_for: tuple[int, int] | None = None) -> None:
    """Write `encoder.safetensors` into a folder and, on request, `encoder.onnx`.

    Args:
        encoder: in eval mode, on the CPU.
        arch: name of its architecture.
        folder: where to write.
        onnx_for: (h, w) of the images that the ONNX form takes; None writes no ONNX.
    """
    write_bytes(folder / WEIGHTS, weights_bytes(encoder, arch))
    if onnx_for is not None:
        write_bytes(folder / ONNX, onnx_bytes(encoder, onnx_for))
