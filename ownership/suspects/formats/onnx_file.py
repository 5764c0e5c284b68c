"""Open an ONNX file as an encoder: it is vetted before anything runs, and runs on the CPU."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ownership.errors import SuspectError
from ownership.io.text import printable
from ownership.suspects.formats.adapter import AdaptedEncoder
from ownership.suspects.formats.onnx_vetting import ExternalData as ExternalData
from ownership.suspects.formats.onnx_vetting import vet
from ownership.suspects.formats.outputs import choose_output

_INPUTS = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
    "tensor(uint8)": torch.uint8,
}
_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


def open_onnx(
    path: Path, *, external_data: bool = False, output: str | None = None, pooling: str = "auto"
) -> AdaptedEncoder:
    """Return the encoder in an ONNX file.

    Args:
        path: the file, in a folder that contains nothing else but its external data.
        external_data: whether tensors may be in other files of the folder.
        output: name of the output that is the representation; None for the only float output, or the only one whose
            name states a representation.
        pooling: pooling of tokens and maps, one of `POOLINGS`.

    Raises:
        SuspectError: if the model is invalid, has not one image input, or several outputs are left.
        ExternalData: if files with external data are missing.
    """
    found = vet(path, external_data)
    session = _session(path)
    images = _image_input(session)
    outputs = session.get_outputs()
    chosen = choose_output({o.name: o.shape or ["?"] for o in outputs if o.type in _FLOATS}, output)

    def run(batch: Tensor) -> Tensor:
        (answer,) = session.run([chosen], {images.name: batch.numpy()})
        if not isinstance(answer, np.ndarray) or answer.dtype.kind != "f":
            raise SuspectError("suspect: the ONNX output is not float (n, d)", "export the pooled representation")
        return torch.from_numpy(answer)

    encoder = AdaptedEncoder(
        run,
        batch=images.batch,
        alone=found.dynamic,
        size=images.size,
        channels_last=images.channels_last,
        dtype=images.dtype,
        pooling=pooling,
    )
    if len(outputs) > 1:
        encoder.choices["output"] = printable(chosen)
    return encoder


def _session(path: Path) -> Any:
    """Return onnxruntime's session of a vetted file, on the CPU and deterministic."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import: the Linux wheels phone home
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.use_deterministic_compute = True
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's errors share no base below Exception
        raise _invalid(str(e) or type(e).__name__, f"onnxruntime {ort.__version__}") from e


def _invalid(said: str, reader: str) -> SuspectError:
    """Return the error for what onnxruntime says of a file: too new for it, or invalid."""
    if found := re.search(r"IR version: (\d+), max supported IR version: (\d+)", said):
        what, most = f"has ONNX IR version {found[1]}", found[2]
    elif found := re.search(r"Opset (\d+) is under development.* for domain (\S+) is till opset (\d+)", said):
        what, most = f"has opset {found[1]} of {printable(found[2], 40)}", found[3]
    else:
        first = said.splitlines()[0].split(" failed:")[-1]
        cause = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |/\S+\.(cc|h):\d+ .*\) (?=[A-Z])", "", first)
        cause = cause if len(cause) <= 250 else "…" + cause[-249:]  # the cause is what comes last
        if " : NOT_IMPLEMENTED : " in first:  # as most operators on doubles are
            hint = "export it in float32, with standard operators"
            return SuspectError(f"suspect: {reader} cannot run it on the CPU ({printable(cause, 300)})", hint)
        return SuspectError(f"suspect: the ONNX graph is invalid ({printable(cause, 300)})", "export it again")
    return SuspectError(
        f"suspect: the file {what}, and {reader} reads up to {most}",
        "update onnxruntime, or ask for an export with an older opset",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _ImageInput:
    """The only input of a model."""

    name: str
    batch: int | None  # None: any
    size: tuple[int, int]  # 0: any
    channels_last: bool
    dtype: torch.dtype


def _image_input(session: Any) -> _ImageInput:
    """Return the only input, if it takes images."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in _INPUTS or len(inputs[0].shape) != 4:
        raise SuspectError(
            "suspect: the ONNX model must have one image input (n, 3, h, w), float or uint8, got "
            + printable(", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)),
            "export the image encoder alone",
        )
    n, *rest = (d if isinstance(d, int) and d > 0 else 0 for d in inputs[0].shape)
    channels_last = rest[2] == 3 and rest[0] != 3
    channels, size = (rest[2], rest[:2]) if channels_last else (rest[0], rest[1:])
    if channels not in (0, 3):
        raise SuspectError(
            f"suspect: the ONNX model takes {channels} channels, expected 3",
            "export it with three-channel input (n, 3, h, w)",
        )
    return _ImageInput(
        name=inputs[0].name,
        batch=n or None,
        size=(size[0], size[1]),
        channels_last=channels_last,
        dtype=_INPUTS[inputs[0].type],
    )
