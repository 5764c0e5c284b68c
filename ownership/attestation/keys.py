"""Signing keys (Ed25519): create, read, identify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ownership.errors import OwnershipError
from ownership.io.canonical import sha256
from ownership.io.files import read_bytes, write_bytes
from ownership.io.text import printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def make_signing_key(out: Path | str, passphrase: str = "") -> str:
    """Write a new signing key to `out` (mode 0600) and its public key to `out`.pub.

    Args:
        out: File of the private key (PKCS #8 as PEM).
        passphrase: Encrypts the private key; empty for none.

    Returns:
        The fingerprint of the public key.

    Raises:
        OwnershipError: If one of the files exists or cannot be written.
    """
    out = Path(out)
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = out.with_name(out.name + ".pub")
    for path in (out, public):
        if path.exists():
            raise OwnershipError(f"{printable(path, 300)} exists already", "a signing key is never overwritten")
    key = Ed25519PrivateKey.generate()
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(_bytes(passphrase))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    write_bytes(out, private, secret=True)
    write_bytes(public, public_pem(key.public_key()))
    return fingerprint(key.public_key())


def load_signing_key(path: Path | str, passphrase: Callable[[], str]) -> Ed25519PrivateKey:
    """Read a signing key.

    Args:
        path: File of the private key.
        passphrase: Called for the passphrase if the key is encrypted.

    Raises:
        OwnershipError: If the file holds no Ed25519 key, or the passphrase is wrong.
    """
    path = Path(path)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = read_bytes(path, OwnershipError, "signing key")
    shown = printable(path, 300)
    try:
        try:
            key = load_pem_private_key(data, None)
        except TypeError:  # encrypted
            key = load_pem_private_key(data, _bytes(passphrase()))
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        encrypted = b"ENCRYPTED" in data
        if b"PUBLIC KEY" in data:
            raise OwnershipError(f"signing key: {shown} is a public key", "give the key beside it, without .pub") from e
        raise OwnershipError(
            f"signing key: {shown} cannot be {'decrypted' if encrypted else 'read'}",
            "wrong passphrase (TURNMARK_PASSPHRASE, or the prompt)?" if encrypted else "make one: turnmark keygen",
        ) from e
    if not isinstance(key, Ed25519PrivateKey):
        raise OwnershipError(f"signing key: {shown} is no Ed25519 key", "make one: turnmark keygen")
    return key


def load_public_key(data: bytes, error: type[OwnershipError], what: str) -> Ed25519PublicKey:
    """Return the Ed25519 public key in `data`.

    Args:
        data: The PEM of the key and nothing else.
        error: Class of the exception to raise.
        what: Description of the key, for messages.

    Raises:
        OwnershipError: `error`, for anything else.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    hint = "an Ed25519 public key as PEM, from turnmark keygen"
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as e:
        raise error(f"{what} is no public key", hint) from e
    if not isinstance(key, Ed25519PublicKey):
        raise error(f"{what} is a key of another algorithm", hint)
    if public_pem(key) != data.replace(b"\r\n", b"\n"):
        raise error(f"{what} holds more than a public key", hint)
    return key


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Return a public key as PEM (SubjectPublicKeyInfo)."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of the key's DER form (SubjectPublicKeyInfo), in hexadecimal."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _bytes(passphrase: str) -> bytes:
    """Return the bytes that were typed, even if the environment held bytes that are not UTF-8."""
    return passphrase.encode(errors="surrogateescape")
