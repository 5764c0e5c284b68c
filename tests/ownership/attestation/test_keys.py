"""Signing keys and the bytes that are signed."""

from __future__ import annotations

import base64
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
from support.claims import Sealed
from support.tsa import openssl

from ownership.attestation.dsse import pre_authentication
from ownership.attestation.keys import fingerprint, load_public_key, load_signing_key, make_signing_key
from ownership.attestation.timestamps import load_roots
from ownership.errors import OwnershipError


def test_pre_authentication_is_dsses_example() -> None:
    """The example of the DSSE protocol document."""
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == expected


def test_signing_keys(tmp_path: Path) -> None:
    digest = make_signing_key(tmp_path / "k", "Geheim ✓")
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in (tmp_path / "k").read_bytes()
    key = load_signing_key(tmp_path / "k", lambda: "Geheim ✓")
    assert fingerprint(key.public_key()) == digest
    assert fingerprint(load_public_key((tmp_path / "k.pub").read_bytes(), OwnershipError, "key")) == digest
    for wrong in ("", "geheim"):
        with pytest.raises(OwnershipError, match="cannot be decrypted") as e:
            load_signing_key(tmp_path / "k", lambda wrong=wrong: wrong)  # type: ignore[misc]
        assert e.value.exit_code == 2
    with pytest.raises(OwnershipError, match="exists already"):
        make_signing_key(tmp_path / "k")
    for name in ("k.pub", "rubbish", "nowhere"):
        (tmp_path / "rubbish").write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        with pytest.raises(OwnershipError, match="signing key"):
            load_signing_key(tmp_path / name, str)


def test_keys_of_openssl_serve(tmp_path: Path, sealed: Sealed) -> None:
    openssl(tmp_path, "genpkey", "-algorithm", "ed25519", "-out", "plain")
    openssl(tmp_path, "pkcs8", "-topk8", "-scrypt", "-in", "plain", "-out", "hard", "-passout", "pass:x")
    openssl(tmp_path, "pkey", "-in", "plain", "-pubout", "-out", "pub")
    public = load_public_key((tmp_path / "pub").read_bytes(), OwnershipError, "key")
    for name in ("plain", "hard"):
        assert load_signing_key(tmp_path / name, lambda: "x").public_key() == public


def test_keys_of_other_algorithms_are_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = generate_private_key(SECP256R1())
    (tmp_path / "ec").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(OwnershipError, match="no Ed25519 key"):
        load_signing_key(tmp_path / "ec", str)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(OwnershipError, match="another algorithm"):
        load_public_key(pem, OwnershipError, "key")


def test_damaged_keys_and_roots_end_in_one_error(sealed: Sealed, tmp_path: Path) -> None:
    """Every byte of the DER of a root and of a public key, changed."""
    for path, read in (
        (sealed.first.roots, load_roots),
        (sealed.public, lambda p: load_public_key(p.read_bytes(), OwnershipError, "key")),
    ):
        first, *middle, last = path.read_text().splitlines()
        der = base64.b64decode("".join(middle))
        for at, value in product(range(len(der)), (0, 0x7F)):
            changed = base64.encodebytes(der[:at] + bytes([value]) + der[at + 1 :]).decode()
            (tmp_path / "x.pem").write_text(f"{first}\n{changed}{last}\n")
            with suppress(OwnershipError):
                read(tmp_path / "x.pem")
