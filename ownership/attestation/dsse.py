"""Signed envelopes (DSSE, the Dead Simple Signing Envelope).

An envelope holds a payload, its type and one signature over both (DSSE's pre-authentication encoding), so a document
signed as one type never passes for another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ownership.attestation.keys import fingerprint
from ownership.errors import ClaimIntegrityError, OwnershipError
from ownership.io.canonical import base64_text, canonical_json, parse_canonical, unbase64
from ownership.io.text import printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


PAYLOAD_TYPE = "application/vnd.in-toto+json"


def sign(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return a signed envelope around `payload`, as canonical JSON."""
    signature = key.sign(pre_authentication(PAYLOAD_TYPE, payload))
    return canonical_json(
        {
            "payload": base64_text(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": fingerprint(key.public_key()), "sig": base64_text(signature)}],
        }
    )


def open_envelope(envelope: bytes, key: Ed25519PublicKey, error: type[OwnershipError] = ClaimIntegrityError) -> bytes:
    """Return the payload of a signed envelope.

    Args:
        envelope: Content of the envelope.
        key: The signer's public key.
        error: Class of the exception to raise.

    Raises:
        OwnershipError: `error`, unless the envelope has the type of an in-toto statement and exactly one signature,
            which is good under `key`.
    """
    from cryptography.exceptions import InvalidSignature

    what = "seal: statement.dsse.json"
    content = parse_canonical(envelope, error, what)
    if set(content) != {"payload", "payloadType", "signatures"}:
        raise error(f"{what} is no DSSE envelope", "it needs payload, payloadType, signatures")
    if content["payloadType"] != PAYLOAD_TYPE:
        raise error(f"{what} is of type {printable(content['payloadType'])}", f"a seal is of type {PAYLOAD_TYPE}")
    signatures = content["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        count = len(signatures) if isinstance(signatures, list) else "no"
        raise error(f"{what} holds {count} signatures, not one", "it was changed; get the original")
    if not isinstance(signatures[0], dict) or set(signatures[0]) != {"keyid", "sig"}:
        raise error(f"{what}: its signature is malformed", "it needs keyid and sig")
    if signatures[0]["keyid"] != fingerprint(key):
        raise error(
            f"{what} names the key {printable(signatures[0]['keyid'])}, not {fingerprint(key)}",
            "it was signed with another key, or the public key was replaced",
        )
    try:
        payload, signature = unbase64(content["payload"]), unbase64(signatures[0]["sig"])
    except (TypeError, ValueError) as e:
        raise error(f"{what} holds malformed base64", "it was changed; get the original") from e
    try:
        key.verify(signature, pre_authentication(PAYLOAD_TYPE, payload))
    except InvalidSignature as e:
        raise error(f"{what}: the signature is wrong", "it was changed; get the original") from e
    return payload


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that DSSE signs: type and payload with their lengths (pre-authentication encoding)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
