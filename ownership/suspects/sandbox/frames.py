"""Frames between us and the cage: magic, length of a JSON header, the header, then raw bytes of stated length.

Standard library only: the cage reads its first frame before it imports anything else.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

MAGIC = b"TMK1"
MAX_HEADER = 16384
"""Most bytes of a header; both sides refuse more."""


class BadFrame(Exception):
    """The other side sent no frame of ours, or closed the pipe."""


def write_frame(file: BinaryIO, header: dict[str, Any], raw: bytes | memoryview = b"") -> None:
    """Writes a frame and flushes; the header's `raw` is the number of bytes that follow it."""
    encoded = json.dumps({**header, "raw": len(raw)}).encode()
    if len(encoded) > MAX_HEADER:
        raise BadFrame("header too long")
    file.write(struct.pack("<4sI", MAGIC, len(encoded)) + encoded)
    if len(raw):
        file.write(raw)
    file.flush()


def read_header(file: BinaryIO) -> dict[str, Any]:
    """Returns a frame's header, with `raw`, the number of bytes to read next.

    Raises:
        BadFrame: for anything else.
    """
    magic, length = struct.unpack("<4sI", read_exactly(file, 8))
    if magic != MAGIC or length > MAX_HEADER:
        raise BadFrame("no frame")
    try:
        header = json.loads(read_exactly(file, length))
    except (ValueError, RecursionError) as e:
        raise BadFrame("header is no JSON") from e
    if not isinstance(header, dict) or type(header.get("raw")) is not int or header["raw"] < 0:
        raise BadFrame("header without length")
    return header


def read_exactly(file: BinaryIO, count: int) -> bytearray:
    """Returns the next `count` bytes; the caller has checked that it may take that much memory.

    Raises:
        BadFrame: if the pipe ends before.
    """
    out = bytearray(count)
    view, have = memoryview(out), 0
    while have < count:
        got = file.readinto(view[have:])  # type: ignore[attr-defined]  # buffered pipes have it
        if not got:
            raise BadFrame(f"pipe closed after {have} of {count} bytes")
        have += got
    return out
