"""Signatures for a commitment: of a timestamp authority, or of a beacon's round; a key, or the pick of twins, follows.

A key folder holds the key and its probes, which are secret, and what may be published: `commitment.json` and, once
the key is anchored, `commitment.tsr`. `openssl ts -verify` reads both. A key that follows from a beacon's round draws
its probes once that is signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from ownership.attestation.beacon import BeaconRound, ask_beacon, read_round
from ownership.attestation.timestamps import ask_authority, read_reply, request
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.io.canonical import canonical_json
from ownership.io.files import write_bytes
from ownership.keyed.commitment import Commitment
from ownership.keyed.features import PoolFeatures
from ownership.keyed.key import Key
from ownership.keyed.maps import Targets
from ownership.keyed.pool import KEY_FILE, KeyMaterial

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

COMMITMENT_FILE, REPLY_FILE = "commitment.json", "commitment.tsr"


A = TypeVar("A", bound=Commitment)


def anchor_request(of: Commitment) -> bytes:
    """Return a timestamp request (RFC 3161, DER) over a commitment; it reveals a digest and nothing else.

    Raises:
        ClaimError: if it is anchored already.
    """
    _refuse_anchored(of)
    return request(of.commitment).as_bytes()


def anchored_by(of: A, url: str, roots: Sequence[Certificate] = ()) -> A:
    """Return a key or twins anchored by the timestamp authority at `url`.

    Args:
        of: not anchored yet.
        url: address of the authority.
        roots: root certificates that the reply must chain to.

    Raises:
        ClaimError: if it is anchored already.
        OwnershipError: if the authority gives no reply, or one that does not cover the commitment.
    """
    _refuse_anchored(of)
    query = request(of.commitment)
    reply = ask_authority(url, query.as_bytes())
    read_reply(reply, of.commitment, roots, nonce=query.nonce, of="commitment", error=ClaimIntegrityError)
    return of.anchored(reply)


def anchored_with(of: A, reply: bytes, roots: Sequence[Certificate] = ()) -> A:
    """Return a key or twins anchored with an authority's reply to its request.

    Raises:
        ClaimError: if it is anchored already.
        ClaimIntegrityError: if the reply does not cover exactly the bytes of the commitment, or is malformed.
    """
    _refuse_anchored(of)
    read_reply(reply, of.commitment, roots, of="commitment")
    return of.anchored(reply)


def drawn_by(of: A, url: str) -> A:
    """Return a key or twins with the signature of the round that the commitment names, from a relay of the beacon.

    Raises:
        ClaimError: if the commitment names no round, or the round's signature is there.
        OwnershipError: if the round is still to come, or the relay gives no usable reply.
        ClaimIntegrityError: if the signature is not the beacon's.
    """
    return of.drawn(ask_beacon(url, _awaited(of)))


def drawn_with(of: A, reply: bytes) -> A:
    """Return a key or twins with the signature of the round that the commitment names, from a relay's reply.

    Raises:
        ClaimError: if the commitment names no round, or the round's signature is there.
        OwnershipError: if the reply is malformed or of another round.
        ClaimIntegrityError: if the signature is not the beacon's.
    """
    return of.drawn(read_round(reply, _awaited(of)))


def _awaited(of: Commitment) -> BeaconRound:
    if of.beacon is None or not of.waits:
        raise ClaimError(
            "the commitment waits for no round of a beacon", "it names one if it is made with --beacon-time"
        )
    return of.beacon


def save_key(key: Key, images: Tensor, folder: Path, features: PoolFeatures | None = None) -> None:
    """Write a key folder: the key, the probes that it draws from the images of its pool, and what may be published.

    A key that waits for a beacon's round draws nothing yet.

    Args:
        key: the key.
        images: `(n, c, h, w)` uint8, the images of its pool.
        folder: where to write.
        features: an encoder's features of them, if the key was committed to some.

    Raises:
        ClaimError: if these are other images than the key was committed to, or too much alike for its maps.
        ClaimIntegrityError: if these are other features.
    """
    material = draw_if_signed(key, images, features)
    if features is not None:
        features.save(folder)
    if material is None:
        write_bytes(folder / KEY_FILE, canonical_json(key.to_dict()), secret=True)
    else:
        material.save(folder)
    write_bytes(folder / COMMITMENT_FILE, key.commitment)
    if key.anchor is not None:
        write_bytes(folder / REPLY_FILE, key.anchor)


def draw_if_signed(key: Key, images: Tensor, features: PoolFeatures | None = None) -> KeyMaterial | None:
    """Return the key with what it draws; None if it still waits for a beacon's round.

    Raises:
        ClaimError: if these are other images than the key was committed to, or too much alike for its maps.
        ClaimIntegrityError: if these are other features.
    """
    tried = replace(key, beacon=None) if key.waits else key  # so that what no key can use is refused before the round
    material = KeyMaterial.draw(tried, images, None if features is None else features.rows)
    Targets(material)  # features that no map can be made of are refused here
    return None if key.waits else material


def _refuse_anchored(of: Commitment) -> None:
    if of.anchor is not None:
        raise ClaimError("the commitment is anchored already", "another anchor would make another key, or another pick")
