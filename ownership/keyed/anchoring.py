"""The anchor of a key: a timestamp authority's signature of the commitment, from which the key then follows.

A key folder holds the key and its probes, which are secret, and what may be published: `commitment.json` and, once
the key is anchored, `commitment.tsr`. `openssl ts -verify` reads both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ownership.attestation.timestamps import ask_authority, read_reply, request
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.io.files import write_bytes
from ownership.keyed.key import Key
from ownership.keyed.pool import KeyMaterial

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

COMMITMENT_FILE, REPLY_FILE = "commitment.json", "commitment.tsr"


def key_request(key: Key) -> bytes:
    """Return a timestamp request (RFC 3161, DER) over a key's commitment; it reveals a digest and nothing else.

    Raises:
        ClaimError: if the key is anchored already.
    """
    _refuse_anchored(key)
    return request(key.commitment).as_bytes()


def anchored_by(key: Key, url: str, roots: Sequence[Certificate] = ()) -> Key:
    """Return the key anchored by the timestamp authority at `url`.

    Args:
        key: not anchored yet.
        url: address of the authority.
        roots: root certificates that the reply must chain to.

    Raises:
        ClaimError: if the key is anchored already.
        OwnershipError: if the authority gives no reply, or one that does not cover the commitment.
    """
    _refuse_anchored(key)
    query = request(key.commitment)
    reply = ask_authority(url, query.as_bytes())
    read_reply(reply, key.commitment, roots, nonce=query.nonce, of="commitment", error=ClaimIntegrityError)
    return key.anchored(reply)


def anchored_with(key: Key, reply: bytes, roots: Sequence[Certificate] = ()) -> Key:
    """Return the key anchored with an authority's reply to its request.

    Raises:
        ClaimError: if the key is anchored already.
        ClaimIntegrityError: if the reply does not cover exactly the bytes of the commitment, or is malformed.
    """
    _refuse_anchored(key)
    read_reply(reply, key.commitment, roots, of="commitment")
    return key.anchored(reply)


def save_key(key: Key, images: Tensor, folder: Path) -> KeyMaterial:
    """Write a key folder: the key, the probes that it draws from the images of its pool, and what may be published.

    Raises:
        ClaimError: if these are other images than the key was committed to.
    """
    material = KeyMaterial.draw(key, images)
    material.save(folder)
    write_bytes(folder / COMMITMENT_FILE, key.commitment)
    if key.anchor is not None:
        write_bytes(folder / REPLY_FILE, key.anchor)
    return material


def _refuse_anchored(key: Key) -> None:
    if key.anchor is not None:
        raise ClaimError("the key is anchored already", "another anchor would make another key")
