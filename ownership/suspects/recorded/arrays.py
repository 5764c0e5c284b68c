"""Read recorded representations: `.npy`, `.safetensors` or `.parquet`, detected from the content.

The bytes are untrusted. Size and header are checked before memory is allocated, so that no file uses more memory than a
few times its size, or than the expected rows.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from ownership.errors import OwnershipError, SuspectError, UnsafeSuspectError
from ownership.io.extras import require
from ownership.io.files import read_bytes
from ownership.io.text import printable

MIN_DIM, MAX_DIM = 2, 16384
"""Dimension of a representation."""

NAME = "representations"
"""Name of the tensor that is read from a safetensors file with several tensors."""

Rows = NDArray[np.float32]

_FORMATS = ".npy, .safetensors or .parquet"
_HINT = "one row of floating-point numbers for each file of the probe folder, in file-name order"


def read_rows(path: Path, count: int) -> tuple[bytes, Rows]:
    """Read a file of `count` representations.

    Args:
        path: `.npy` (float16, float32 or float64, little-endian), `.safetensors` or `.parquet`.
        count: expected number of rows.

    Returns:
        The file's bytes and the rows `(count, d)` float32, `MIN_DIM <= d <= MAX_DIM`; NaN and infinities are kept.

    Raises:
        SuspectError: if the file contains anything else.
        UnsafeSuspectError: if it is a pickle, which is a program.
    """
    limit = count * MAX_DIM * 8 + 2**20
    try:
        size = path.stat().st_size if path.is_file() else 0
    except OSError:
        size = 0  # `read_bytes` reports the error
    if size > limit:
        raise SuspectError(
            f"{printable(path.name)} has {size} bytes, more than {count} rows of {MAX_DIM} numbers need", _HINT
        )
    data = read_bytes(path, SuspectError, "representations")
    rows = _reader(data)(data, count)
    if rows.ndim != 2:
        raise SuspectError(f"representations must be a 2-D array, got shape {_shape(rows.shape)}", _HINT)
    if len(rows) != count:
        raise SuspectError(f"expected {count} rows, got {len(rows)}", _HINT)
    if not MIN_DIM <= rows.shape[1] <= MAX_DIM:
        raise SuspectError(f"rows of {rows.shape[1]} numbers", f"from {MIN_DIM} to {MAX_DIM}")
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # numbers too large for float32 become infinite, which the audit reports
        return data, np.array(rows, dtype=np.float32, order="C")


def _reader(data: bytes) -> Callable[[bytes, int], NDArray[Any]]:
    """Return the reader for the format of these bytes."""
    if data[:6] == b"\x93NUMPY":
        return _npy
    if data[:4] == b"PAR1":
        return _parquet
    if len(data) > 9 and data[8:9] == b"{" and struct.unpack("<Q", data[:8])[0] <= len(data) - 8:
        return _safetensors
    if data[:4] == b"PK\x03\x04":
        raise SuspectError("representations: this is a zip archive (.npz, .pt)", f"save them as {_FORMATS}")
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UnsafeSuspectError("representations: this is a pickle, a program; refused", f"save them as {_FORMATS}")
    raise SuspectError("representations: unknown format", f"expected {_FORMATS}")


def _npy(data: bytes, count: int) -> NDArray[Any]:
    """Read NumPy's format without pickles, and without evaluating the header, which is a Python expression."""
    major, prefix = data[6:7], 10 if data[6:7] == b"\x01" else 12
    if major not in (b"\x01", b"\x02", b"\x03") or len(data) < prefix:
        raise SuspectError("representations: the .npy file is damaged", "fetch it again")
    (length,) = struct.unpack("<H" if prefix == 10 else "<I", data[8:prefix])
    start = prefix + length
    if length > 10_000 or start > len(data):
        raise SuspectError("representations: the .npy file is damaged", "fetch it again")
    header = data[prefix:start].decode("latin-1")
    kind = _only(r"""['"]descr['"]\s*:\s*(\[|['"][^'"]*['"])""", header).strip("'\"")
    fortran = _only(r"""['"]fortran_order['"]\s*:\s*(True|False)""", header) == "True"
    shape = tuple(int(n) for n in _only(r"""['"]shape['"]\s*:\s*\(([\d, ]{0,60})\)""", header).split(",") if n.strip())
    if kind not in ("<f2", "<f4", "<f8") or len(shape) != 2:
        shown = "a structure" if kind == "[" else printable(kind, 20)
        raise SuspectError(
            f"representations must be a 2-D array of little-endian float16, float32 or float64, got {shown} of shape "
            f"{_shape(shape)}",
            _HINT,
        )
    if shape[0] != count:
        raise SuspectError(f"expected {count} rows, got {shape[0]}", _HINT)
    dtype = np.dtype(kind)
    if shape[0] * shape[1] * dtype.itemsize != len(data) - start:
        raise SuspectError(
            f"representations: the .npy file has {len(data) - start} bytes for an array of shape {_shape(shape)}",
            "the copy may have failed; fetch it again",
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape, order="F" if fortran else "C")


def _only(pattern: str, header: str) -> str:
    """Return the only match of a pattern in a header."""
    found = re.findall(pattern, header)
    if len(found) != 1:
        raise SuspectError("representations: the .npy file has no header of a plain array", _HINT)
    return str(found[0])


def _safetensors(data: bytes, count: int) -> NDArray[Any]:
    """Read the only tensor, or the one named `representations`."""
    from safetensors.torch import load

    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, RecursionError) as e:
        raise SuspectError(f"representations: safetensors file is damaged ({printable(e)})", "fetch it again") from e
    tensor = next(iter(tensors.values())) if len(tensors) == 1 else tensors.get(NAME)
    if tensor is None:
        raise SuspectError(f"the safetensors file holds {len(tensors)} tensors, none of them {NAME}", _HINT)
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64) or tensor.ndim != 2:
        raise SuspectError(
            "representations must be a 2-D tensor of 16, 32 or 64 bit floats, got "
            f"{str(tensor.dtype).removeprefix('torch.')} of shape {_shape(tensor.shape)}",
            _HINT,
        )
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _parquet(data: bytes, count: int) -> NDArray[Any]:
    """Read one column of lists, or columns of numbers; the declared sizes are checked before decompression."""
    require("pyarrow")
    import pyarrow
    from pyarrow import parquet

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = parquet.ParquetFile(pyarrow.BufferReader(data))
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            columns = [group.column(j) for group in groups for j in range(group.num_columns)]
            if file.metadata.num_rows != count:
                raise SuspectError(f"expected {count} rows, got {file.metadata.num_rows}", _HINT)
            if any(max(c.num_values, c.total_uncompressed_size // 8) > count * MAX_DIM + 2**17 for c in columns) or (
                len(columns) > MAX_DIM * max(1, len(groups))
            ):
                raise SuspectError(f"the .parquet file holds more than {count} rows of {MAX_DIM} numbers", _HINT)
            return _matrix(file.read(use_threads=False), count)
    except OwnershipError:
        raise
    except Exception as e:  # pyarrow raises its own errors, and what the bytes make it raise
        raise SuspectError(f"representations: the .parquet file is damaged ({printable(e)})", "fetch it again") from e


def _matrix(table: Any, count: int) -> NDArray[Any]:
    """Return the rows of an Arrow table."""
    import pyarrow.types as kinds

    columns = [column.combine_chunks() for column in table.columns]
    if any(column.null_count for column in columns):
        raise SuspectError("the .parquet file has missing values", _HINT)
    if all(kinds.is_floating(column.type) for column in columns) and columns:
        return np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1)
    if len(columns) == 1 and hasattr(columns[0], "flatten") and hasattr(columns[0].type, "value_type"):
        values = columns[0].flatten()
        if kinds.is_floating(values.type) and not values.null_count and len(values) % max(count, 1) == 0:
            lengths = {len(item) for item in columns[0]}
            if len(lengths) == 1:
                flat: NDArray[Any] = values.to_numpy(zero_copy_only=False)
                return flat.reshape(count, -1)
    raise SuspectError(
        "the .parquet file must hold one column of lists of one length, or columns of numbers, all floating-point",
        _HINT,
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if shape else "()"
