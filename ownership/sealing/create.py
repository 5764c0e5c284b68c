"""Seal a claim, once, before any dispute; attach timestamps to a sealed claim or a signed report."""

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
from ownership.claims.seal import PUBLIC_KEY, SALTS, Seal, leaf_hashes, plan_sha256, salts_json, statement
from ownership.claims.storage import open_folder
from ownership.errors import ClaimError, OwnershipError
from ownership.io.canonical import sha256
from ownership.io.files import new_folder, write_bytes
from ownership.io.text import printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.x509 import Certificate


def seal_claim(folder: Path | str, signing_key: Ed25519PrivateKey) -> Seal:
    """Seal a claim: commit to everything in it, sign the commitment, write it to `folder/seal`.

    Args:
        folder: The claim's folder. The claim is verified first.
        signing_key: The owner's signing key.

    Returns:
        The seal. A claim that this key has sealed already stays as it is; its seal is returned.

    Raises:
        ClaimIntegrityError: If the claim, or the seal it has, does not verify.
        ClaimError: If another key has sealed it, or it is a redacted claim without a seal.
    """
    folder = Path(folder)
    verified = open_folder(folder)
    Claim.parse(verified)
    key = fingerprint(signing_key.public_key())
    if verified.seal is not None:
        if verified.seal.public_key_sha256 != key:
            raise ClaimError(
                f"this claim is sealed already, with the key {verified.seal.public_key_sha256}",
                "a seal is never replaced, because its timestamps would be lost; build a new claim",
            )
        return verified.seal
    if verified.redaction.parts:
        raise ClaimError("a redacted claim cannot be sealed", "seal the whole claim, then make the redacted copy")
    digests = verified.leaf_digests()
    salts = {name: secrets.token_bytes(SALT_BYTES) for name in digests}
    leaves = leaf_hashes(digests, salts)
    payload = statement(verified.sha256, plan_sha256(verified.content), root_hash(leaves), len(leaves))
    files = {
        ENVELOPE: sign(payload, signing_key),
        PUBLIC_KEY: public_pem(signing_key.public_key()),
        SALTS: salts_json(salts),
    }
    with new_folder(folder / "seal") as new:
        for name, written in files.items():
            write_bytes(new / name, written, secret=True)
    sealed = open_folder(folder).seal
    if sealed is None or sealed.claim_sha256 != verified.sha256:
        raise ClaimError("the claim changed while it was sealed", "seal it again while no other program writes to it")
    return sealed


def sealed_claim(folder: Path) -> Seal:
    """Return the seal of a claim.

    Raises:
        ClaimIntegrityError: If the claim does not verify.
        ClaimError: If it has no seal.
    """
    seal = open_folder(folder).seal
    if seal is None:
        raise ClaimError("this claim has no seal", "turnmark claim seal")
    return seal


Opened = Callable[[Path], SignedStatement]
"""A function that opens the seal in a folder: `sealed_claim`, or `ownership.reports.signature.signed_report`."""


def write_request(folder: Path, out: Path, opened: Opened = sealed_claim) -> None:
    """Write a timestamp request for a seal to `out`; it reveals a digest to the authority and nothing else.

    Args:
        folder: The folder of the claim or report.
        out: The file to write.
        opened: Opens the seal in the folder.

    Raises:
        OwnershipError: If there is no seal, or `out` lies in the folder.
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
    """Store the reply of a timestamp authority with a seal; a seal may have replies of several authorities.

    Args:
        folder: The folder of the claim or report.
        reply: The authority's reply (DER).
        roots: Root certificates that the reply must chain to. With none, its authority is not checked.
        nonce: Nonce of the request, where the reply must answer a request made just now.
        opened: Opens the seal in the folder.

    Raises:
        OwnershipError: `error` of the seal, if the reply covers other bytes or comes from no trusted authority; or if
            there is no seal.
    """
    seal = opened(folder)
    timestamp = read_reply(reply, seal.envelope, roots, nonce=nonce, error=seal.error)
    write_bytes(folder / "seal" / "timestamps" / f"{sha256(reply)}.tsr", reply, secret=seal.secret)
    return timestamp


def stamp(folder: Path, url: str, roots: Sequence[Certificate] = (), opened: Opened = sealed_claim) -> Timestamp:
    """Request a timestamp from the authority at `url` and store its reply with a seal.

    Args:
        folder: The folder of the claim or report.
        url: Address of the authority.
        roots: Root certificates that the reply must chain to.
        opened: Opens the seal in the folder.

    Raises:
        OwnershipError: If the authority gives no reply, or one that does not cover the seal.
    """
    query = request(opened(folder).envelope)
    return attach(folder, ask_authority(url, query.as_bytes()), roots, nonce=query.nonce, opened=opened)
