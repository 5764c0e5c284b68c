"""Canonical bytes: the JSON form that digests are computed from, hexadecimal numbers, base64, SHA-256."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from ownership.errors import OwnershipError


def sha256(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: object) -> bytes:
    """Return the byte form of `value` that digests are computed from: sorted keys, indent of 2, UTF-8, no NaN."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def parse_json(data: bytes, error: type[OwnershipError], what: str) -> dict[str, Any]:
    """Return the JSON object in `data`.

    Args:
        data: Any bytes.
        error: Class of the exception to raise.
        what: Description of the data, for messages.

    Raises:
        OwnershipError: `error`, if `data` is anything else.
    """
    try:
        value = json.loads(data, parse_int=_bounded)
    except (ValueError, RecursionError) as e:
        raise error(f"{what} is not valid JSON", "the file is damaged or of another kind") from e
    if not isinstance(value, dict):
        raise error(f"{what} holds no JSON object", "the file is damaged or of another kind")
    return value


def _bounded(text: str) -> int:
    """Return a whole number; no file states one of more than 64 bits, and of some no float can be made."""
    value = int(text)
    if abs(value) >= 1 << 63:
        raise ValueError("a number of more than 64 bits")
    return value


def parse_canonical(data: bytes, error: type[OwnershipError], what: str) -> dict[str, Any]:
    """Return the JSON object in `data`, which must be in canonical form.

    Args:
        data: Any bytes.
        error: Class of the exception to raise.
        what: Description of the data, for messages.

    Raises:
        OwnershipError: `error`, if `data` is anything else.
    """
    value = parse_json(data, error, what)
    try:
        canonical = canonical_json(value)
    except (ValueError, RecursionError) as e:  # NaN, half of a surrogate pair, too deeply nested
        raise error(f"{what} is no canonical JSON", "it was changed or damaged; get the original") from e
    if canonical != data:
        raise error(f"{what} is no canonical JSON", "it was changed or damaged; get the original")
    return value


def unhex(text: str) -> bytes:
    """Return the bytes of a lower-case hexadecimal number; raise ValueError or TypeError for anything else."""
    value = bytes.fromhex(text)
    if value.hex() != text:
        raise ValueError("not lower-case hexadecimal")
    return value


def base64_text(data: bytes) -> str:
    """Return `data` as canonical base64, the text that `unbase64` reads."""
    return base64.b64encode(data).decode()


def unbase64(text: str) -> bytes:
    """Return the bytes of a canonical base64 text; raise ValueError or TypeError for anything else."""
    value = base64.b64decode(text, validate=True)
    if base64_text(value) != text:
        raise ValueError("not the canonical base64")
    return value
