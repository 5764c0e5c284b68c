"""Frames between this process and the sandboxed one: magic, header length, JSON header, raw bytes of declared length.

Standard library only: the sandboxed process reads its first frame before it imports anything else.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

MAGIC = b"TMK1"
MAX_HEADER = 16384
"""Most bytes of a header."""


class BadFrame(Exception):
    """The other process sent no valid frame, or closed the pipe."""


def write_frame(file: BinaryIO, header: dict[str, Any], raw: bytes | memoryview = b"") -> None:
    """Write a frame and flush; the field `raw` of the header becomes the number of raw bytes."""
    encoded = json.dumps({**header, "raw": len(raw)}).encode()
    if len(encoded) > MAX_HEADER:
        raise BadFrame("header too long")
    file.write(struct.pack("<4sI", MAGIC, len(encoded)) + encoded)
    if len(raw):
        file.write(raw)
    file.flush()


def read_header(file: BinaryIO) -> dict[str, Any]:
    """Return the header of the next frame; its field `raw` is the number of raw bytes that follow.

    Raises:
        BadFrame: if the next bytes are no valid frame.
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
    """Return the next `count` bytes. The caller checks the count, which determines the memory used.

    Raises:
        BadFrame: if the pipe ends earlier.
    """
    out = bytearray(count)
    view, have = memoryview(out), 0
    while have < count:
        got = file.readinto(view[have:])  # type: ignore[attr-defined]  # buffered pipes have it
        if not got:
            raise BadFrame(f"pipe closed after {have} of {count} bytes")
        have += got
    return out
