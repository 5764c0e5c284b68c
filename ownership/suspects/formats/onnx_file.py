"""Open an ONNX file as an encoder: it is vetted before anything runs, and runs on the CPU."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ownership.errors import SuspectError
from ownership.io.text import printable
from ownership.suspects.formats.adapter import AdaptedEncoder

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Operator sets that onnxruntime implements; any other would need a custom library, which is refused."""

MOST_BYTES = 64 << 30
"""Largest size of a tensor, in bytes of 64-bit numbers, that a file may declare."""


class ExternalData(Exception):
    """The model refers to external files that are missing; `names` are hostile text."""

    def __init__(self, names: list[str]) -> None:
        super().__init__("external data")
        self.names = names


def open_onnx(
    path: Path, *, external_data: bool = False, output: str | None = None, pooling: str = "cls"
) -> AdaptedEncoder:
    """Return the encoder in an ONNX file.

    Args:
        path: the file, in a folder that contains nothing else but its external data.
        external_data: whether tensors may be in other files of the folder.
        output: name of the output that is the representation. If None, the first output of shape `(n, d)`, else tokens
            `(n, t, d)`, else maps `(n, d, h, w)`.
        pooling: pooling of tokens, one of `POOLINGS`.

    Raises:
        SuspectError: if the model is invalid, or has not one image input and a float output.
        ExternalData: if files with external data are missing.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import: the Linux wheels phone home
    import onnxruntime as ort

    _vet(path, external_data)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.use_deterministic_compute = True
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's errors share no base below Exception
        first = str(e).splitlines()[0].replace(str(path), "model") if str(e) else type(e).__name__
        raise SuspectError(f"suspect: the ONNX graph is invalid ({printable(first)})", "export it again") from e
    name, batch, size, channels_last = _input(session)
    chosen = _output(session, output)

    def run(images: Tensor) -> Tensor:
        (answer,) = session.run([chosen], {name: images.numpy()})
        if not isinstance(answer, np.ndarray) or answer.dtype.kind != "f":
            raise SuspectError("suspect: the ONNX output is not float (n, d)", "export the pooled representation")
        return torch.from_numpy(answer)

    return AdaptedEncoder(run, batch=batch, size=size, channels_last=channels_last, pooling=pooling)


def _input(session: Any) -> tuple[str, int | None, tuple[int, int], bool]:
    """Return name, batch size, image size and layout of the only input."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
        raise SuspectError(
            "suspect: the ONNX model must have one float input (n, 3, h, w), got "
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
    return inputs[0].name, n or None, (size[0], size[1]), channels_last


def _output(session: Any, wanted: str | None) -> str:
    """Return the name of the output that is the representation."""
    outputs = session.get_outputs()
    shown = printable(", ".join(f"{o.name} {o.type} {o.shape}" for o in outputs))
    if wanted is not None:
        if wanted not in [o.name for o in outputs]:
            raise SuspectError(
                f"suspect: the ONNX model has no output {printable(wanted)!r}, it has {shown}", "--onnx-output"
            )
        return wanted
    floats = [o for o in outputs if o.type in ("tensor(float)", "tensor(float16)", "tensor(double)")]
    for rank in (2, 0, 3, 4):  # 0: the model does not say
        for o in floats:
            if len(o.shape or ()) == rank:
                return str(o.name)
    raise SuspectError(
        f"suspect: the ONNX model has no float output (n, d), got {shown}", "export the pooled representation"
    )


def _vet(path: Path, external_data: bool) -> None:
    """Refuse, before anything runs, custom operators, compiled code, and tensors that are external or too large."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, RuntimeError, OSError) as e:
        raise SuspectError(
            "suspect: unknown format, or a damaged ONNX file", "expected safetensors, a state dict or ONNX"
        ) from e
    domains = {i.domain for i in model.opset_import}
    nodes, tensors, missing = 0, 0, []
    for what in _walk(model, onnx):
        if isinstance(what, onnx.NodeProto):
            nodes += 1
            domains.add(what.domain)
            if what.op_type == "EPContext":
                raise SuspectError("suspect: the ONNX model holds compiled code (EPContext)", "export plain ONNX")
            continue
        tensors += 1
        if (name := _tensor(what, path, external_data, onnx)) is not None:
            missing.append(name)
    functions = {f.domain for f in model.functions}
    for domain in sorted(domains - functions):
        if domain not in DOMAINS:
            raise SuspectError(
                f"suspect: operator domain {printable(domain)!r} is not supported", "export standard operators"
            )
    if missing:
        raise ExternalData(sorted(set(missing)))


def _tensor(tensor: Any, path: Path, external_data: bool, onnx: Any) -> str | None:
    """Check one tensor; return the name of its external file if that file is missing."""
    shown = printable(tensor.name)
    count = math.prod(tensor.dims)
    if any(d < 0 for d in tensor.dims) or count * 8 > MOST_BYTES:
        raise SuspectError(
            f"suspect: initializer {shown} declares {printable(list(tensor.dims))}, {count:.2g} numbers",
            "the file is damaged or malicious",
        )
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return None
    if not external_data:
        raise SuspectError(f"suspect: tensor {shown} lies in another file", "--external-data, or export it inside")
    about = {entry.key: entry.value for entry in tensor.external_data}
    name: str = about.get("location", "")
    if not name or name != Path(name).name or name in (".", ".."):
        raise SuspectError(
            f"suspect: external data refused: {printable(name)} leaves the model's folder",
            "export with the weights inside",
        )
    file = path.with_name(name)
    if not file.is_file():
        return name
    try:
        offset, length = int(about.get("offset", 0)), int(about.get("length", -1))
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (ValueError, KeyError, TypeError) as e:
        raise SuspectError(f"suspect: external data of {shown} is described wrongly", "export it again") from e
    length = file.stat().st_size - offset if length < 0 else length
    if offset < 0 or offset + length > file.stat().st_size or length != count * width:
        raise SuspectError(
            f"suspect: external data of {shown} has {length} bytes at {offset}, expected {count * width}", "fetch again"
        )
    return None


def _walk(model: Any, onnx: Any) -> Iterator[Any]:
    """Yield every node and tensor of a model: of its graph, its subgraphs and functions, and of sparse tensors."""
    stack: list[Any] = [model.graph, *model.functions]
    while stack:
        part = stack.pop()
        if isinstance(part, onnx.GraphProto):
            yield from part.initializer
            for sparse in part.sparse_initializer:
                yield from _sparse(sparse)
            stack += part.node
        elif isinstance(part, onnx.FunctionProto):
            stack += part.node
        else:
            yield part
            for attribute in part.attribute:
                yield from (attribute.t, *attribute.tensors)
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from _sparse(sparse)
                stack += [attribute.g, *attribute.graphs]


def _sparse(sparse: Any) -> Iterator[Any]:
    """Yield the two dense parts of a sparse tensor; refuse it if its dense form would be too large."""
    yield sparse.values
    yield sparse.indices
    if math.prod(sparse.dims) * 8 > MOST_BYTES or any(d < 0 for d in sparse.dims):
        raise SuspectError(
            f"suspect: a sparse initializer declares {printable(list(sparse.dims))}",
            "the file is damaged, or not what it claims to be",
        )
