"""Vet an ONNX file before anything runs: its operators, and the size and place of its tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownership.errors import SuspectError
from ownership.io.text import printable

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")
"""Operator sets that onnxruntime implements; any other would need a custom library, which is refused.

The last one it writes itself, when it saves a graph that it has optimized.
"""

DYNAMIC = frozenset(
    {
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "ConvInteger",
        "QAttention",
    }
)
"""Operators of dynamic quantization: the scale follows from the whole batch, and so does every answer."""

MOST_BYTES = 64 << 30
"""Largest size of a tensor, in bytes of 64-bit numbers, that a file may declare."""


class ExternalData(Exception):
    """The model refers to external files that are missing; `names` are hostile text."""

    def __init__(self, names: list[str]) -> None:
        super().__init__("external data")
        self.names = names


@dataclass(frozen=True, slots=True, kw_only=True)
class Vetted:
    """What vetting found out."""

    dynamic: bool  # whether an answer depends on the other images of its batch


def vet(path: Path, external_data: bool) -> Vetted:
    """Refuse custom operators, compiled code, and tensors that are external or too large.

    Raises:
        SuspectError: if the file is no ONNX, or holds one of these.
        ExternalData: if files with external data are missing.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, RuntimeError, OSError) as e:
        raise SuspectError(
            "suspect: unknown format, or a damaged ONNX file", "expected safetensors, a state dict or ONNX"
        ) from e
    used, missing = set(), set()
    for what in _walk(model, onnx):
        if isinstance(what, onnx.NodeProto):
            used.add((what.domain, what.op_type))
        elif (name := _tensor(what, path, external_data, onnx)) is not None:
            missing.add(name)
    _check_operators(used - {(f.domain, f.name) for f in model.functions})
    if missing:
        raise ExternalData(sorted(missing))
    return Vetted(dynamic=any(operator in DYNAMIC for _, operator in used))


def _check_operators(used: set[tuple[str, str]]) -> None:
    """Refuse operators (domain, name) that onnxruntime does not implement. Domains that no node uses do not count."""
    for domain, operator in sorted(used):
        if operator == "EPContext":
            raise SuspectError("suspect: the ONNX model holds compiled code (EPContext)", "export plain ONNX")
        if domain not in DOMAINS:
            raise SuspectError(
                f"suspect: operator domain {printable(domain)!r} is not supported ({printable(operator, 40)})",
                "export standard operators",
            )


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
