"""Canonical bytes: the one JSON form that digests are taken of, hexadecimal, base64, SHA-256."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from ownership.errors import OwnershipError


def sha256(data: bytes) -> str:
    """Returns the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    """Returns the one byte form of `value` used for digests: sorted keys, two-space indent, UTF-8, no NaN."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse_json(data: bytes, error: type[OwnershipError], what: str) -> dict[str, Any]:
    """Returns the JSON object in `data`; raises `error` for anything else, whatever the bytes."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise error(f"{what} is not valid JSON", "the file is damaged or of another kind") from e
    if not isinstance(value, dict):
        raise error(f"{what} holds no JSON object", "the file is damaged or of another kind")
    return value


def parse_canonical(data: bytes, error: type[OwnershipError], what: str) -> dict[str, Any]:
    """Returns the JSON object in `data`, which must be its canonical form; raises `error` for anything else."""
    value = parse_json(data, error, what)
    try:
        canonical = canonical_json(value)
    except (ValueError, RecursionError) as e:  # NaN, half a surrogate pair, nested without end
        raise error(f"{what} is no canonical JSON", "it was changed or damaged; get the original") from e
    if canonical != data:
        raise error(f"{what} is no canonical JSON", "it was changed or damaged; get the original")
    return value


def unhex(text: str) -> bytes:
    """Returns bytes from their one hexadecimal form; raises ValueError or TypeError for anything else."""
    value = bytes.fromhex(text)
    if value.hex() != text:
        raise ValueError("not lower-case hexadecimal")
    return value


def unbase64(text: str) -> bytes:
    """Returns bytes from their one base64 form; raises ValueError or TypeError for anything else."""
    value = base64.b64decode(text, validate=True)
    if base64.b64encode(value).decode() != text:
        raise ValueError("not the canonical base64")
    return value
