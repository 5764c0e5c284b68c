"""Sealing a claim, what its owner does once, before any dispute; and timestamps for what is sealed or signed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ownership.attestation.dsse import sign
from ownership.attestation.keys import fingerprint, public_pem
from ownership.attestation.merkle import SALT_BYTES, root_hash
from ownership.attestation.statement import ENVELOPE, SignedStatement
from ownership.attestation.timestamps import Timestamp, ask_authority, read_reply, request
from ownership.claims.claim import Claim
from ownership.claims.seal import PUBLIC_KEY, Seal, leaf_hashes, plan_sha256, read_digests, salts_json, statement
from ownership.errors import ClaimError, OwnershipError
from ownership.io.canonical import sha256
from ownership.io.files import new_folder, write_bytes
from ownership.io.text import printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.x509 import Certificate


def seal_claim(folder: Path, signing_key: Ed25519PrivateKey) -> tuple[Seal, bool]:
    """Commits to everything in a claim, signs that, and writes it to `folder/seal`, whole or not at all.

    Args:
        folder: the claim's; it is verified first.
        signing_key: the owner's.

    Returns:
        The seal, and whether it is new: a claim that this key has sealed, and that was not changed, stays as it is.

    Raises:
        ClaimIntegrityError: if the claim, or the seal it has, does not verify.
        ClaimError: if another key has sealed it, or it is an unsealed view.
    """
    claim = Claim.load(folder)
    key = fingerprint(signing_key.public_key())
    if claim.seal is not None:
        if claim.seal.public_key_sha256 != key:
            raise ClaimError(
                f"this claim is sealed already, with the key {claim.seal.public_key_sha256}",
                "a seal is never replaced: its timestamps would be lost; build a claim anew",
            )
        return claim.seal, False
    if claim.redaction.parts:
        raise ClaimError("a view of a claim cannot be sealed", "seal the whole claim, then make the view")
    content, digests = read_digests(folder, claim.redaction)
    salts = {name: secrets.token_bytes(SALT_BYTES) for name in digests}
    leaves = leaf_hashes(digests, salts)
    signed = sign(statement(claim.sha256, plan_sha256(content), root_hash(leaves), len(leaves)), signing_key)
    files = {
        ENVELOPE: signed,
        PUBLIC_KEY: public_pem(signing_key.public_key()),
        "salts.json": salts_json(salts),
    }
    with new_folder(folder / "seal") as new:
        for name, written in files.items():
            write_bytes(new / name, written, secret=True)
    sealed = Claim.load(folder).seal
    if sealed is None or sealed.claim_sha256 != claim.sha256:
        raise ClaimError("the claim changed while it was sealed", "seal it again, with nothing else at work on it")
    return sealed, True


def sealed_claim(folder: Path) -> Seal:
    """Returns the seal of a claim that verifies; raises ClaimError if it has none."""
    seal = Claim.load(folder).seal
    if seal is None:
        raise ClaimError("this claim has no seal", "turnmark claim seal")
    return seal


Opened = Callable[[Path], SignedStatement]
"""What opens the seal in a folder: `sealed_claim`, or `ownership.reports.signature.signed_report`."""


def write_request(folder: Path, out: Path, opened: Opened = sealed_claim) -> None:
    """Writes a timestamp request for what is sealed to `out`; it tells an authority a digest and nothing else.

    Args:
        folder: of the claim or report.
        out: the request's file.
        opened: opens its seal.

    Raises:
        OwnershipError: if it has no seal, or `out` would lie in its folder.
    """
    seal = opened(folder)
    if folder.resolve() in out.resolve().parents:
        raise OwnershipError(f"{printable(out, 300)} lies in the sealed folder", "write the request elsewhere")
    write_bytes(out, request(seal.envelope).as_bytes())


def attach(
    folder: Path,
    reply: bytes,
    roots: Sequence[Certificate] = (),
    *,
    nonce: int | None = None,
    opened: Opened = sealed_claim,
) -> Timestamp:
    """Stores an authority's reply with a seal, once it is shown to cover it; several authorities may answer.

    Args:
        folder: of the claim or report.
        reply: what the authority answered.
        roots: certificates it must chain to; none: not checked.
        nonce: of the request it must answer, if it was asked just now.
        opened: opens the seal.

    Raises:
        OwnershipError: the seal's `error`, if the reply does not cover it or is of no trusted authority; or that there
            is no seal.
    """
    seal = opened(folder)
    timestamp = read_reply(reply, seal.envelope, roots, nonce=nonce, error=seal.error)
    write_bytes(folder / "seal" / "timestamps" / f"{sha256(reply)}.tsr", reply, secret=seal.secret)
    return timestamp


def stamp(folder: Path, url: str, roots: Sequence[Certificate] = (), opened: Opened = sealed_claim) -> Timestamp:
    """Asks an authority for a timestamp and stores its reply.

    Raises:
        OwnershipError: if it gives no reply, or one that does not cover the seal.
    """
    query = request(opened(folder).envelope)
    return attach(folder, ask_authority(url, query.as_bytes()), roots, nonce=query.nonce, opened=opened)
