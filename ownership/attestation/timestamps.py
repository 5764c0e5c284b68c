"""RFC 3161 timestamps: the statement of an authority that some bytes existed at a time.

A reply is untrusted input. The bytes that it covers are always checked. Its authority can be checked only against root
certificates that the verifier trusts, never against certificates that came with the claim.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ownership.attestation.exchange import exchange
from ownership.errors import ClaimIntegrityError, OwnershipError
from ownership.io.canonical import sha256
from ownership.io.extras import require
from ownership.io.files import read_bytes
from ownership.io.text import printable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampRequest, TimeStampResponse

SHA512 = "2.16.840.1.101.3.4.2.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timestamp:
    """The content of a timestamp.

    Attributes:
        authority: Name of the authority, by the certificate of the signer.
        time: The latest time that the stated accuracy allows, in UTC.
        trusted: Whether the authority chains to a root of the verifier; False if no roots were given.
        sha256: SHA-256 of the reply.
    """

    authority: str
    time: datetime
    trusted: bool
    sha256: str


def request(data: bytes) -> TimeStampRequest:
    """Return a timestamp request over the SHA-512 of `data` that asks for the certificate of the authority."""
    require("rfc3161_client")
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    return TimestampRequestBuilder().data(data).hash_algorithm(HashAlgorithm.SHA512).build()


def load_roots(path: Path | str) -> tuple[Certificate, ...]:
    """Return the certificates in a PEM file.

    Raises:
        OwnershipError: If it holds none.
    """
    path = Path(path)
    from cryptography.x509 import InvalidVersion, load_pem_x509_certificates

    data = read_bytes(path, OwnershipError, "roots")
    try:
        return tuple(dict.fromkeys(load_pem_x509_certificates(data)))
    except (ValueError, InvalidVersion) as e:
        raise OwnershipError(f"roots: {printable(path, 300)} holds no certificates", "PEM, one or several") from e


def read_reply(
    reply: bytes,
    data: bytes,
    roots: Sequence[Certificate] = (),
    *,
    nonce: int | None = None,
    name: str = "reply",
    of: str = "seal",
    error: type[OwnershipError] = ClaimIntegrityError,
) -> Timestamp:
    """Return the content of a timestamp reply, after checking that it covers `data`.

    Args:
        reply: The reply, a TimeStampResp in DER.
        data: The bytes that it must cover.
        roots: Root certificates that it must chain to. With none, its authority is not checked.
        nonce: Nonce of the request that it must answer; None for any.
        name: Name of the reply, for messages.
        of: What the bytes are, for messages.
        error: Class of the exception to raise.

    Raises:
        OwnershipError: `error`, if the reply is malformed, a refusal, over other data, or of no trusted authority.
    """
    require("rfc3161_client")
    from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

    what = f"timestamp {printable(name)}"
    with _foreign(
        what,
        "is no timestamp reply in strict DER",
        "some authorities sort their certificates wrongly: `openssl ts -verify` reads those; ask another authority",
        error,
    ):
        response = decode_timestamp_response(reply)
        status = response.status
    if status != 0:
        raise error(f"{what}: the authority refused (status {status})", "ask it again, or another")
    with _foreign(what, "is malformed", "it was changed or damaged; get the original", error):
        info = response.tst_info
        imprint, stated = info.message_imprint, info.gen_time.astimezone(UTC)
        algorithm, digest, answered = imprint.hash_algorithm.dotted_string, imprint.message, info.nonce
        accuracy = getattr(info, "accuracy", None)
        if accuracy is not None:
            stated += timedelta(
                seconds=accuracy.seconds or 0, milliseconds=accuracy.millis or 0, microseconds=accuracy.micros or 0
            )
        authority = _signer(response)
    if algorithm != SHA512 or digest != hashlib.sha512(data).digest():
        raise error(f"{what} does not cover this {printable(of)}", "it is of another one, or over another hash")
    if nonce is not None and answered != nonce:
        raise error(f"{what} does not answer this request (nonce)", "ask the authority again")
    if roots:
        builder = VerifierBuilder()
        for root in dict.fromkeys(roots):
            builder = builder.add_root_certificate(root)
        try:
            with _foreign(what, "is malformed", "it was changed or damaged; get the original", error):
                builder.build().verify_message(response, data)
        except error as e:
            if isinstance(e.__cause__, VerificationError):
                raise error(
                    f"{what}: no trusted authority vouches for it ({printable(e.__cause__)})",
                    "it was changed, or its root is not among --roots",
                ) from e
            raise
    return Timestamp(authority=authority, time=stated, trusted=bool(roots), sha256=sha256(reply))


def token_signature(reply: bytes, error: type[OwnershipError] = ClaimIntegrityError) -> bytes:
    """Return what of the authority's signature in a timestamp reply only the authority can determine.

    Other bytes of a reply are not signed (status text, certificates, unsigned attributes), so its owner can change them
    and the reply stays valid. From an ECDSA signature (r, s) follows another valid one, (r, n - s), without a key: r
    counts alone. Any other signature counts whole. It is not checked here: `read_reply` does that.

    Args:
        reply: The reply, a TimeStampResp in DER.
        error: Class of the exception to raise.

    Raises:
        OwnershipError: `error`, if it holds no token with exactly one signer.
    """
    try:
        _, token = _elements(_only(reply))[:2]
        _, wrapped = _elements(token[1])
        signed = _elements(_only(wrapped[1]))
        infos = _elements(signed[-1][1])
        if len(infos) != 1:
            raise ValueError("not one signer")
        signatures = [content for tag, content in _elements(infos[0][1]) if tag == _OCTET_STRING]
        (signature,) = signatures
        signature = _unforgeable(signature)
    except (ValueError, IndexError) as e:
        raise error("timestamp: the reply holds no token with one signer", "get the original reply") from e
    return signature


_INTEGER, _OCTET_STRING, _SEQUENCE = 0x02, 0x04, 0x30


def _unforgeable(signature: bytes) -> bytes:
    """Return r of an ECDSA signature, a sequence of two integers; any other signature as it is."""
    try:
        (outer,) = _elements(signature)
        inner = _elements(outer[1]) if outer[0] == _SEQUENCE else []
    except (ValueError, IndexError):
        return signature
    return inner[0][1] if [tag for tag, _ in inner] == [_INTEGER, _INTEGER] else signature


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """Return tag and content of each DER element in `data`, one after the other."""
    out, at = [], 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise ValueError("an element is cut off")
        out.append((tag, data[at : at + length]))
        at += length
    return out


def _only(data: bytes) -> bytes:
    ((_, content),) = _elements(data)
    return content


def ask_authority(url: str, query: bytes, *, timeout: float = 30.0) -> bytes:
    """Return the reply of a timestamp authority; redirects are refused, size and time are limited.

    Args:
        url: Address of the authority.
        query: The request, in DER.
        timeout: Limit for the whole reply, in seconds.

    Raises:
        OwnershipError: If there is no usable reply.
    """
    return exchange(url, query, content_type="application/timestamp-query", timeout=timeout)


def parse_date(text: str) -> datetime:
    """Return a date or time given in ISO form. Without a zone it is UTC; a date means its first moment.

    >>> parse_date("2026-05-01")
    datetime.datetime(2026, 5, 1, 0, 0, tzinfo=datetime.timezone.utc)

    Raises:
        OwnershipError: If the text is neither.
    """
    try:
        value = datetime.fromisoformat(text)
    except ValueError as e:
        raise OwnershipError(f"{printable(text)!r} is no date", "2026-05-01, or 2026-05-01T12:00:00+02:00") from e
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def past_date(text: str) -> datetime:
    """Return a date or time as `parse_date` does, which must not be in the future.

    Raises:
        OwnershipError: If it is, or the text is no date.
    """
    value = parse_date(text)
    if value > datetime.now(UTC):
        raise OwnershipError(
            f"{printable(text)} is in the future", "give the first date from which it is known to exist"
        )
    return value


def _signer(response: TimeStampResponse) -> str:
    """Return the subject of the signing certificate; where the reply has none, the name in the token."""
    from cryptography.x509 import DirectoryName, load_der_x509_certificate

    signers = [(s.issuer, s.serial_number) for s in response.signed_data.signer_infos]
    for certificate in map(load_der_x509_certificate, response.signed_data.certificates):
        if (certificate.issuer, certificate.serial_number) in signers:
            return printable(certificate.subject.rfc4514_string())
    name = response.tst_info.name
    return printable(name.value.rfc4514_string()) if isinstance(name, DirectoryName) else "unnamed"


@contextmanager
def _foreign(what: str, problem: str, hint: str, error: type[OwnershipError]) -> Iterator[None]:
    """Turn everything that a parser of untrusted bytes raises into one integrity error.

    BaseException is caught because a panic of a Rust parser is not an Exception, and because the exceptions of these
    parsers are not documented.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as e:
        raise error(f"{what} {problem}", hint) from e
