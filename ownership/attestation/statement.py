"""A signed statement in a folder `seal/`, and the timestamps that cover it: what claims and reports have in common.

```
seal/
├── statement.dsse.json   in-toto statement in a DSSE envelope: what is stood for, by its SHA-256
├── *.pub                 the public key it is signed with
└── timestamps/*.tsr      what authorities answered; each file is named by its SHA-256
```

What the statement says differs, and so does its predicate type: that of a claim never passes for that of a report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ownership.attestation.dsse import open_envelope
from ownership.attestation.keys import fingerprint, load_public_key
from ownership.attestation.timestamps import Timestamp, read_reply
from ownership.errors import OwnershipError
from ownership.io.canonical import canonical_json, parse_canonical, sha256
from ownership.io.files import read_bytes
from ownership.io.text import printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.x509 import Certificate

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
ENVELOPE = "statement.dsse.json"
UNTIMESTAMPED = "UNTIMESTAMPED: proves nothing about when"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedStatement:
    """A signed statement, its signature checked."""

    error: ClassVar[type[OwnershipError]]  # raised where something about it is wrong
    covers: ClassVar[str]  # what it is of, in words
    signer: ClassVar[str]  # whose signature it should be, in words
    secret: ClassVar[bool]  # whether its files are for their owner only

    public_key_sha256: str  # fingerprint of the key it was signed with
    timestamps: tuple[Timestamp, ...] = ()
    envelope: bytes = field(default=b"", repr=False)  # the signed bytes, which timestamps cover
    replies: Mapping[str, bytes] = field(default_factory=dict, repr=False)  # of timestamp authorities, by name

    def under(self, roots: Sequence[Certificate]) -> Self:
        """Returns it with its timestamps checked against the verifier's root certificates; none: unchecked.

        Raises:
            OwnershipError: `error`, if a timestamp does not cover it, or does not chain to one of the roots.
        """
        return replace(self, timestamps=check_timestamps(self.replies, self.envelope, roots, self.error))


def in_toto(subject: Mapping[str, str], predicate_type: str, predicate: Mapping[str, Any]) -> bytes:
    """Returns what is signed: an in-toto statement (v1) about files or claims (name -> SHA-256), as canonical JSON."""
    return canonical_json(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subject.items()],
            "predicateType": predicate_type,
            "predicate": predicate,
        }
    )


def open_in_toto(
    envelope: bytes,
    key: Ed25519PublicKey,
    predicate_type: str,
    again: Callable[[dict[str, Any]], bytes],
    error: type[OwnershipError],
) -> dict[str, Any]:
    """Returns the content of a statement signed with `key`.

    Args:
        envelope: content of `statement.dsse.json`.
        key: the signer's.
        predicate_type: the only one that is accepted.
        again: makes the statement anew from the fields it has to have: any other field, or spelling, is refused.
        error: the class to raise.

    Raises:
        OwnershipError: `error`, if signature or statement are not what they should be.
    """
    payload, what = open_envelope(envelope, key, error), "seal: the signed statement"
    content = parse_canonical(payload, error, what)
    if content.get("predicateType") != predicate_type:
        said = printable(content.get("predicateType"))
        raise error(f"{what} is no seal of this kind: {said}, not {predicate_type}", "update turnmark")
    try:
        good = again(content) == payload
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise error(f"{what} is malformed", "it was written by another program") from e
    if not good:
        raise error(f"{what} is malformed", "it was written by another program")
    return content


def check_timestamps(
    stored: Mapping[str, bytes], envelope: bytes, roots: Sequence[Certificate], error: type[OwnershipError]
) -> tuple[Timestamp, ...]:
    """Returns what the stored replies (name -> bytes) say about an envelope, in order of time.

    Raises:
        OwnershipError: `error`, if one of them is not good.
    """
    found = [read_reply(data, envelope, roots, name=name, error=error) for name, data in stored.items()]
    return tuple(sorted(found, key=lambda t: (t.time, t.sha256)))


def is_sealed(folder: Path) -> bool:
    """Returns whether there is something that ought to be a seal, whatever it is."""
    return (folder / "seal").exists() or (folder / "seal").is_symlink()


def read_part(folder: Path, name: str, error: type[OwnershipError]) -> bytes:
    """Returns a file of `folder/seal`; raises `error` if it is missing or a link."""
    path = folder / "seal" / name
    if (folder / "seal").is_symlink() or path.is_symlink() or not path.is_file():
        raise error(f"seal: {printable(name)} is missing", "get the original")
    return read_bytes(path, error, "seal")


def read_replies(folder: Path, error: type[OwnershipError]) -> dict[str, bytes]:
    """Returns the timestamp replies of `folder/seal`, by name; each must bear its own digest as its name."""
    place = folder / "seal" / "timestamps"
    found = {}
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        if path.name.startswith("."):  # half of a file that a killed run was writing
            continue
        data = read_part(folder, f"timestamps/{path.name}", error)
        if path.name != f"{sha256(data)}.tsr":
            raise error(
                f"seal: timestamps/{printable(path.name)} is not what its name says", "it was changed or damaged"
            )
        found[path.name] = data
    return found


def timestamp_line(time: str, authority: str, *, trusted: bool) -> str:
    """Returns one timestamp in words."""
    said = "its authority chains to a root you trust" if trusted else "its authority was NOT checked against a root"
    return f"timestamp {time} by {authority}: it covers this seal; {said}"


def verify_signature(seal: SignedStatement, public_key: Path | None) -> Iterator[str]:
    """Yields a line for signature and key.

    Args:
        seal: opened, so that its signature is good.
        public_key: file of the signer's public key, from the signer; without it, anybody may have signed.

    Raises:
        OwnershipError: `seal.error`, if another key signed; or that the file is no public key.
    """
    yield f"signature    good, of {seal.covers}, by the key {seal.public_key_sha256}"
    if public_key is None:
        yield f"key          NOT compared with the {seal.signer}'s: give --public-key"
        return
    data = read_bytes(public_key, OwnershipError, "public key")
    expected = fingerprint(load_public_key(data, OwnershipError, f"public key: {printable(public_key, 300)}"))
    if expected != seal.public_key_sha256:
        raise seal.error(
            f"seal: signed with the key {seal.public_key_sha256}, not with the {seal.signer}'s, {expected}",
            "somebody else signed this",
        )
    yield "key          it is the one given"


def verify_times(
    timestamps: Sequence[Timestamp], before: datetime | None, error: type[OwnershipError]
) -> Iterator[str]:
    """Yields a line for every timestamp; raises `error` if none is trusted and earlier than `before`."""
    for t in timestamps:
        yield timestamp_line(t.time.isoformat(), t.authority, trusted=t.trusted)
    if not timestamps:
        yield UNTIMESTAMPED
    if before is None:
        return
    early = [t for t in timestamps if t.trusted and t.time < before]
    if not early:
        when = f"the first timestamp is of {timestamps[0].time.isoformat()}" if timestamps else "there is no timestamp"
        raise error(
            f"seal: not shown to be earlier than {before.isoformat()}: {when}",
            "a seal proves itself only from its first trusted timestamp on",
        )
    yield f"date         earlier than {before.isoformat()}"
