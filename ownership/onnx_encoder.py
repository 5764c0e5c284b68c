"""An ONNX file as an encoder: parsed from bytes, run on the CPU, nothing read that is not in it."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ownership.errors import SuspectError, printable


class OnnxEncoder:
    """An ONNX model as an encoder, on onnxruntime's CPU provider.

    A model made for one size of image is shown images resized to it (bilinear, antialiased when shrinking), as its
    provider would have to; the report says so.

    Args:
        data: the model's bytes.

    Raises:
        SuspectError: if it is no valid encoder: one image input `(n, 3, h, w)`, a float output `(n, d)`.
    """

    def __init__(self, data: bytes) -> None:
        self._session = _onnx_session(data)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
            raise SuspectError(
                "suspect: the ONNX model must have one float input (n, 3, h, w), got "
                + printable(", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)),
                "export the image encoder alone",
            )
        self._input, self._shape = inputs[0].name, inputs[0].shape
        if isinstance(self._shape[1], int) and self._shape[1] != 3:
            raise SuspectError(
                f"suspect: the ONNX model takes {self._shape[1]} channels, expected 3",
                "export it with three-channel input (n, 3, h, w)",
            )
        ranked = [o for o in outputs if o.type == "tensor(float)" and len(o.shape or ()) in (0, 2)]
        if not ranked:
            raise SuspectError(
                "suspect: the ONNX model has no float output (n, d), got "
                + printable(", ".join(f"{o.name} {o.type} {o.shape}" for o in outputs)),
                "export the pooled representation",
            )
        self._output = ranked[0].name

    def __call__(self, images: Tensor) -> Tensor:
        """Returns representations `(n, d)` of images `(n, 3, h, w)` float32 in `[0, 1]`."""
        batch = self._shape[0]
        if (h_w := self.resizes(images.shape)) is not None:
            shrinks = max(images.shape[-2:]) > min(h_w)
            images = F.interpolate(images, size=h_w, mode="bilinear", antialias=shrinks).clamp(0, 1)
        size = batch if isinstance(batch, int) and batch > 0 else len(images)
        parts = []
        for chunk in torch.split(images, size):
            padded = torch.cat([chunk, chunk[:1].expand(size - len(chunk), -1, -1, -1)]) if len(chunk) < size else chunk
            (answer,) = self._session.run([self._output], {self._input: padded.numpy()})
            if not isinstance(answer, np.ndarray) or answer.dtype != np.float32 or answer.ndim != 2:
                raise SuspectError("suspect: the ONNX output is not float (n, d)", "export the pooled representation")
            parts.append(torch.from_numpy(answer[: len(chunk)]))
        return torch.cat(parts)

    def resizes(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Returns the height and width that images of a shape `(..., h, w)` are resized to; None if they fit."""
        pairs = zip(self._shape[2:], shape[-2:], strict=True)
        wanted = tuple(fixed if isinstance(fixed, int) and fixed > 0 else got for fixed, got in pairs)
        return None if wanted == tuple(shape[-2:]) else (wanted[0], wanted[1])


def _onnx_session(data: bytes) -> Any:
    """An inference session that reads nothing but the given bytes."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import: the Linux wheels phone home
    import onnx
    import onnxruntime as ort
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RuntimeError) as e:
        raise SuspectError(
            "suspect: unknown format, or a damaged ONNX file", "expected safetensors, a state dict or ONNX"
        ) from e
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise SuspectError(
                f"suspect: tensor {printable(tensor.name)} lies in another file", "export with the weights inside"
            )
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # whatever the walk above did not see is looked for in an empty folder
    with tempfile.TemporaryDirectory(prefix="turnmark-") as empty:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", empty)
        try:
            return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime's errors share no base below Exception
            first = str(e).splitlines()[0] if str(e) else type(e).__name__
            raise SuspectError(f"suspect: the ONNX graph is invalid ({printable(first)})", "export it again") from e
