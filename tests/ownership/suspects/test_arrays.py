"""Files of recorded rows: each bad file is one clear line, whatever its bytes."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from support.recorded import npy
from support.sampling import examples

from ownership.errors import OwnershipError, SuspectError, UnsafeSuspectError
from ownership.suspects.recorded.arrays import MAX_DIM, read_rows


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    """An .npy file that is only a header."""
    size = "<H" if version == b"\x01\x00" else "<I"
    return b"\x93NUMPY" + version + struct.pack(size, len(text)) + text.encode("latin-1")


def _npz() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(2**24))
    return out.getvalue()


def _compressed_columns(rows: int, dim: int) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet as pq

    out = io.BytesIO()
    flat = pa.array(np.zeros(rows * dim, np.float32))
    pq.write_table(pa.table({"e": pa.FixedSizeListArray.from_arrays(flat, dim)}), out, compression="zstd")
    return out.getvalue()


COUNT = 30
PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }"
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty"),
    "random bytes": (lambda: b"\x17\x03" * 50, "unknown format"),
    "page": (lambda: b"<!DOCTYPE html>", "unknown format"),
    "npz bomb": (_npz, "zip archive"),
    "pickle": (lambda: pickle.dumps([1.0]), "pickle"),
    "objects": (lambda: npy(np.array([[None, "x"]] * COUNT, dtype=object)), r"got \|O"),
    "strings": (lambda: npy(np.array([["a", "b"]] * COUNT)), "got <U1"),
    "integers": (lambda: npy(np.ones((COUNT, 4), np.int64)), "got <i8"),
    "big-endian": (lambda: npy(np.ones((COUNT, 4), ">f4")), "got >f4"),
    "structure": (lambda: npy(np.zeros(COUNT, dtype=[("a", "<f4")])), "got a structure"),
    "1-D": (lambda: npy(np.ones(COUNT, np.float32)), "of shape 30"),
    "3-D": (lambda: npy(np.ones((COUNT, 2, 2), np.float32)), "of shape 30x2x2"),
    "one row short": (lambda: npy(np.ones((COUNT - 1, 4), np.float32)), "expected 30 rows, got 29"),
    "one row too many": (lambda: npy(np.ones((COUNT + 1, 4), np.float32)), "expected 30 rows, got 31"),
    "one number a row": (lambda: npy(np.ones((COUNT, 1), np.float32)), "rows of 1 numbers"),
    "no numbers": (lambda: npy(np.ones((COUNT, 0), np.float32)), "rows of 0 numbers"),
    "too wide": (lambda: npy(np.ones((COUNT, MAX_DIM + 1), np.float16)), "rows of 16385 numbers"),
    "huge shape": (lambda: header(PLAIN % f"{COUNT}, {10**15}"), "has 0 bytes for an array"),
    "cut off": (lambda: npy(np.ones((COUNT, 4), np.float32))[:-3], "bytes for an array"),
    "trailing bytes": (lambda: npy(np.ones((COUNT, 4), np.float32)) + b"x", "bytes for an array"),
    "long header": (lambda: header(" " * 20_000, b"\x02\x00"), "damaged"),
    "header of 4 GiB": (lambda: b"\x93NUMPY\x02\x00\xff\xff\xff\xffx", "damaged"),
    "version": (lambda: header(PLAIN % "30, 4", b"\x09\x00"), "damaged"),
    "no version": (lambda: b"\x93NUMPY", "damaged"),
    "two shapes": (lambda: header(PLAIN % "30, 4), 'shape': (30, 4"), "no header of a plain array"),
    "expression": (lambda: header("__import__('os').abort()"), "no header of a plain array"),
    "deep header": (lambda: header("(" * 9000), "no header of a plain array"),
    "safetensors of integers": (lambda: save({"x": torch.ones(COUNT, 4, dtype=torch.int32)}), "got int32"),
    "safetensors of 1-D": (lambda: save({"x": torch.ones(COUNT)}), "of shape 30"),
    "safetensors of two": (lambda: save({"a": torch.ones(COUNT, 4), "b": torch.ones(2)}), "2 tensors, none of them"),
    "safetensors of none": (lambda: save({}), "0 tensors"),
    "safetensors short": (lambda: save({"x": torch.ones(COUNT - 1, 4)}), "expected 30 rows, got 29"),
    "safetensors cut off": (lambda: save({"x": torch.ones(COUNT, 4)})[:-4], "damaged"),
    "parquet cut off": (lambda: b"PAR1" + b"x" * 40, "damaged"),
    "parquet of many rows": (lambda: _compressed_columns(10**6, 2), "expected 30 rows, got 1000000"),
    "parquet bomb": (lambda: _compressed_columns(COUNT, 10**6), "holds more than 30 rows"),
    "parquet of ragged lists": (
        lambda: _columns({"e": [[1.0, 2.0]] * (COUNT - 2) + [[1.0], [1.0, 2.0, 3.0]]}),
        "one length",
    ),
    "parquet of nothing": (lambda: _columns({"e": [[1.0, None]] * COUNT}), "one length"),
    "parquet with holes": (lambda: _columns({"e": [[1.0, 2.0]] * (COUNT - 1) + [None]}), "missing values"),
    "parquet of words": (lambda: _columns({"e": ["x"] * COUNT}), "floating-point"),
    "parquet of integers": (lambda: _columns({"e": [[1, 2]] * COUNT}), "floating-point"),
    "parquet of no columns": (lambda: _columns({}), "expected 30 rows, got 0"),
}


def _columns(columns: dict[str, list[object]]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_rows_are_one_clear_line(name: str, tmp_path: Path) -> None:
    make, said = BAD[name]
    (tmp_path / "rows").write_bytes(make())
    with pytest.raises(SuspectError, match=said) as e:
        read_rows(tmp_path / "rows", COUNT)
    assert e.value.hint
    assert "\n" not in e.value.message


def test_a_file_larger_than_any_rows_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "rows.npy", "wb") as f:
        f.truncate(10**13)  # sparse
    with pytest.raises(SuspectError, match="more than 30 rows"):
        read_rows(tmp_path / "rows.npy", COUNT)
    with pytest.raises(SuspectError, match="is a directory"):
        read_rows(tmp_path, COUNT)


def test_a_pickle_is_unsafe(tmp_path: Path) -> None:
    (tmp_path / "rows.npy").write_bytes(pickle.dumps([1.0]))
    with pytest.raises(UnsafeSuspectError):
        read_rows(tmp_path / "rows.npy", COUNT)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OwnershipError, match="needs pyarrow") as e:
        read_rows(tmp_path / "rows.parquet", COUNT)
    assert "[parquet]" in e.value.hint


GOOD = (npy(np.ones((COUNT, 3), np.float32)), save({"x": torch.ones(COUNT, 3)}))


@given(st.data())
@examples(300)
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever the bytes: rows of the stated shape, or an OwnershipError."""
    start = data.draw(st.sampled_from([b"", b"\x93NUMPY\x01\x00", b"PAR1", *GOOD]))
    if start in GOOD:  # a good file with some bytes changed, and cut off or longer
        file = bytearray(start)
        for place in data.draw(st.lists(st.integers(0, min(len(file) - 1, 160)), max_size=4)):
            file[place] = data.draw(st.integers(0, 255))
        content = bytes(file[: data.draw(st.sampled_from([len(file), len(file) - 1, 90, 20]))])
    else:
        content = start
    content += data.draw(st.one_of(st.just(b""), st.binary(max_size=80)))
    path = tmp_path / "rows"
    path.write_bytes(content)
    try:
        read, rows = read_rows(path, COUNT)
    except OwnershipError:
        pass  # anything else fails the test
    else:
        assert read == content
        assert rows.shape[0] == COUNT
        assert rows.dtype == np.float32
