"""Protocols of endpoints: the JSON of a request with images, and of a reply with representations.

    turnmark:  {"images": ["<base64 PNG>", ...]}    ->  {"representations": [row, ...]}
    openai:    {"input": ["data:image/png;base64,...", ...], "encoding_format": "float"}
                                                    ->  {"data": [{"index": 0, "embedding": row}, ...]}
    base64:    the same with "encoding_format": "base64"

With a model's name the last two add `"model": NAME`. A row is a list of numbers, or little-endian float32 in base64.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ownership.errors import SuspectError


@dataclass(frozen=True, slots=True)
class Api:
    """One protocol."""

    body: Callable[[Sequence[str], str | None], dict[str, Any]]  # base64 PNGs and a model's name -> JSON to send
    rows: Callable[[Any], list[Any]]  # JSON of the reply -> rows in the order of the images


def read_answer(api: Api, data: bytes, n: int) -> Tensor:
    """Return the representations `(n, d)` float32 of a reply to n images; NaN and infinities are kept.

    Raises:
        SuspectError: if the reply contains anything else.
    """
    try:
        rows = api.rows(json.loads(data))
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise SuspectError("the endpoint's answer is no JSON with representations", "expected a list of rows") from e
    vectors = [_vector(row) for row in rows] if isinstance(rows, list) and len(rows) == n else []
    if not vectors or not all(vectors) or len(set(map(len, vectors))) != 1:
        raise SuspectError(f"the endpoint's answer is not {n} rows of numbers", "expected one row an image")
    try:
        return torch.tensor(vectors, dtype=torch.float32)
    except (OverflowError, RuntimeError) as e:
        raise SuspectError("the endpoint answers numbers out of range", "expected float32") from e


def _vector(row: Any) -> list[Any]:
    """Return the numbers of one row; an empty list if it is invalid."""
    if isinstance(row, str):
        try:
            data = base64.b64decode(row, validate=True)
        except (binascii.Error, ValueError):
            return []
        return [] if len(data) % 4 else np.frombuffer(data, "<f4").tolist()
    return row if isinstance(row, list) and all(type(x) in (int, float) for x in row) else []


def _own_body(images: Sequence[str], model: str | None) -> dict[str, Any]:
    return {"images": list(images)}


def _own_rows(value: Any) -> list[Any]:
    rows: list[Any] = value["representations"]
    return rows


def _openai_body(encoding: str) -> Callable[[Sequence[str], str | None], dict[str, Any]]:
    def body(images: Sequence[str], model: str | None) -> dict[str, Any]:
        named = {} if model is None else {"model": model}
        return {"input": [f"data:image/png;base64,{i}" for i in images], **named, "encoding_format": encoding}

    return body


def _openai_rows(value: Any) -> list[Any]:
    """Return the rows in the order of `index`, of which each must occur once; where no entry has one, as they come."""
    entries = value["data"]
    if not any("index" in entry for entry in entries):
        return [entry["embedding"] for entry in entries]
    rows = {}
    for entry in entries:
        if (index := _index(entry["index"])) in rows:
            raise ValueError("an index twice")
        rows[index] = entry["embedding"]
    if set(rows) != set(range(len(rows))):
        raise ValueError("an index is missing")
    return [rows[i] for i in range(len(rows))]


def _index(value: Any) -> int:
    """Return an index, which some servers write as a string."""
    if type(value) is int:
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    raise ValueError("an index is no number")


def stated_error(data: bytes) -> str:
    """Return the message of an error in JSON, in the forms that servers use; "" if there is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    for name in ("error", "message", "detail"):
        if isinstance(value, dict) and name in value:
            value = value[name]
    return value if isinstance(value, str) else ""


def error_text(data: bytes) -> str:
    """Return what the body of an error says: the message of its JSON, or its first line unless that is markup."""
    lines = data.decode("utf-8", "replace").split("\n")
    first = next((line.strip() for line in lines if line.strip()), "")
    return stated_error(data) or ("" if first.startswith(("<", "{", "[")) else first)


APIS: dict[str, Api] = {
    "turnmark": Api(_own_body, _own_rows),
    "openai": Api(_openai_body("float"), _openai_rows),
    "base64": Api(_openai_body("base64"), _openai_rows),
}
"""Name -> protocol. A new protocol needs two functions and one entry."""
