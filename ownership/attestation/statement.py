"""A signed statement in a folder `seal/`, with its timestamps: what the seals of claims and reports have in common.

```
seal/
├── statement.dsse.json   the signed in-toto statement in a DSSE envelope; names its subjects by SHA-256
├── *.pub                 the public key of the signer
└── timestamps/*.tsr      replies of timestamp authorities; each file is named by its SHA-256
```

Claims and reports have statements of different predicate types, so one never passes for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ownership.attestation.dsse import open_envelope
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
    """A statement whose signature was verified.

    Attributes:
        error: Class of the exception for a failed check.
        covers: What the statement is about, in words.
        signer: Role of the signer, in words.
        secret: Whether only the owner may read the files of the seal.
        public_key_sha256: Fingerprint of the key that signed it.
        timestamps: Its timestamps, earliest first.
        envelope: The signed bytes, which timestamps cover.
        replies: Replies of timestamp authorities, by file name.
    """

    error: ClassVar[type[OwnershipError]]
    covers: ClassVar[str]
    signer: ClassVar[str]
    secret: ClassVar[bool]

    public_key_sha256: str
    timestamps: tuple[Timestamp, ...] = ()
    envelope: bytes = field(default=b"", repr=False)
    replies: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def under(self, roots: Sequence[Certificate]) -> Self:
        """Return the statement with its timestamps checked against root certificates that the verifier trusts.

        Args:
            roots: The certificates. With none, the authority of a timestamp stays unchecked.

        Raises:
            OwnershipError: `error`, if a timestamp covers other bytes or does not chain to one of the roots.
        """
        read = [
            read_reply(data, self.envelope, roots, name=name, error=self.error) for name, data in self.replies.items()
        ]
        return replace(self, timestamps=tuple(sorted(read, key=lambda t: (t.time, t.sha256))))


def in_toto(subject: Mapping[str, str], predicate_type: str, predicate: Mapping[str, Any]) -> bytes:
    """Return the payload of a statement: an in-toto statement (v1), as canonical JSON.

    Args:
        subject: Name -> SHA-256 of everything the statement is about.
        predicate_type: URI of the kind of statement.
        predicate: Content of the statement.
    """
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
    rebuild: Callable[[dict[str, Any]], bytes],
    error: type[OwnershipError],
) -> dict[str, Any]:
    """Return the content of a statement signed with `key`.

    Args:
        envelope: Content of `statement.dsse.json`.
        key: The signer's public key.
        predicate_type: The only accepted type.
        rebuild: Makes the payload again from the required fields; another field or spelling is refused.
        error: Class of the exception to raise.

    Raises:
        OwnershipError: `error`, if the signature or the statement is wrong.
    """
    payload, what = open_envelope(envelope, key, error), "seal: the signed statement"
    content = parse_canonical(payload, error, what)
    if content.get("predicateType") != predicate_type:
        stated = printable(content.get("predicateType"))
        raise error(f"{what} is no seal of this kind: {stated}, not {predicate_type}", "update turnmark")
    try:
        good = rebuild(content) == payload
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise error(f"{what} is malformed", "it was written by another program") from e
    if not good:
        raise error(f"{what} is malformed", "it was written by another program")
    return content


def is_sealed(folder: Path) -> bool:
    """Return whether `folder/seal` exists, whatever it is."""
    return (folder / "seal").exists() or (folder / "seal").is_symlink()


def read_part(folder: Path, name: str, error: type[OwnershipError]) -> bytes:
    """Return the content of a file in `folder/seal`.

    Raises:
        OwnershipError: `error`, if the file is missing or a link.
    """
    path = folder / "seal" / name
    if (folder / "seal").is_symlink() or path.is_symlink() or not path.is_file():
        raise error(f"seal: {printable(name)} is missing", "get the original")
    return read_bytes(path, error, "seal")


def read_replies(folder: Path, error: type[OwnershipError]) -> dict[str, bytes]:
    """Return the timestamp replies in `folder/seal`, by file name.

    Raises:
        OwnershipError: `error`, if a reply is not named by its own SHA-256.
    """
    place = folder / "seal" / "timestamps"
    found = {}
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        if path.name.startswith("."):  # a temporary file of an interrupted run
            continue
        data = read_part(folder, f"timestamps/{path.name}", error)
        if path.name != f"{sha256(data)}.tsr":
            raise error(
                f"seal: timestamps/{printable(path.name)} is not what its name says", "it was changed or damaged"
            )
        found[path.name] = data
    return found


def timestamp_detail(time: str, authority: str, trusted: bool) -> str:
    """Return a timestamp in words: its time, its authority and whether the authority was checked."""
    checked = "its authority chains to a root you trust" if trusted else "its authority was NOT checked against a root"
    return f"{time} by {authority}: it covers this seal; {checked}"


def timestamp_line(time: str, authority: str, *, trusted: bool) -> str:
    """Return a timestamp as one line of text."""
    return f"timestamp {timestamp_detail(time, authority, trusted)}"
