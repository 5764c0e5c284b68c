"""What is withheld from a view of a claim: a claim folder for an auditor, without what an audit does not need.

`claim.json` stays what it is and names all parts with their digests; `redacted.json` says which are not there. Of a
sealed claim it holds their leaves of the Merkle tree, so that signature and root are checked as of the whole claim.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownership.errors import ClaimIntegrityError
from ownership.io.canonical import canonical_json, parse_canonical, unhex
from ownership.io.files import read_bytes
from ownership.io.text import printable

FORMAT_VERSION = 1

NAME = "redacted.json"

PRIVATE_PROBES = "private_probes.safetensors"
PRIVATE_SETS = ("private", "private_views")
"""The probe sets that are the owner's private images; claims of format 1 and 2 keep them with the other probes."""

REDACTABLE = ("key.json", PRIVATE_PROBES, "projection_head.safetensors")
"""Parts that no deciding number needs: the labels of the probes and the predictor stand for the key."""


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is not in a claim's folder; of a whole claim, nothing."""

    parts: tuple[str, ...] = ()
    leaves: Mapping[str, bytes] = field(default_factory=dict)  # of a sealed claim: name -> hash, private images too


def private_part(names: Collection[str]) -> str:
    """Returns which of a claim's parts holds the private images."""
    return PRIVATE_PROBES if PRIVATE_PROBES in names else "probes.safetensors"


def redaction_json(claim_sha256: str, redaction: Redaction, *, sealed: bool) -> bytes:
    """Returns the file's content."""
    return canonical_json(
        {
            "format_version": FORMAT_VERSION,
            "claim_sha256": claim_sha256,
            "parts": list(redaction.parts),
            "leaves": {name: leaf.hex() for name, leaf in redaction.leaves.items()} if sealed else None,
        }
    )


def open_redaction(folder: Path, content: Mapping[str, Any], leaves: int | None) -> Redaction:
    """Returns what is withheld from a claim's folder, once `redacted.json` is what it must be for this claim.

    Args:
        folder: the claim's.
        content: of claim.json, which matches its own digest.
        leaves: of the Merkle tree, as signed; None: unsealed. That the leaves here lead to the root is checked by
            `ownership.claims.seal.check_seal`.

    Raises:
        ClaimIntegrityError: if anything in the file could be otherwise, or a withheld part is there.
    """
    path = folder / NAME
    if not path.exists() and not path.is_symlink():
        return Redaction()
    if path.is_symlink():
        raise ClaimIntegrityError(f"claim integrity: {NAME} is a link", "get the original view")
    stored = parse_canonical(read_bytes(path, ClaimIntegrityError, "claim"), ClaimIntegrityError, f"claim: {NAME}")
    wrong = ClaimIntegrityError(f"claim integrity: {NAME} is not that of this claim", "get the original view")
    parts = tuple(name for name in REDACTABLE if name in content["parts"])
    named = stored.get("leaves")
    if PRIVATE_PROBES not in parts or (named is None) != (leaves is None):
        raise wrong
    try:
        hashes = {name: unhex(leaf) for name, leaf in (named or {}).items()}
    except (AttributeError, TypeError, ValueError) as e:
        raise wrong from e
    images = 0 if leaves is None else leaves - len(content["parts"]) - 1
    names = {*parts, *(f"private/{i}" for i in range(images))} if leaves is not None else set()
    if set(hashes) != names or any(len(leaf) != 32 for leaf in hashes.values()):
        raise wrong
    redaction = Redaction(parts, hashes)
    if redaction_json(content["content_sha256"], redaction, sealed=leaves is not None) != canonical_json(stored):
        raise wrong
    for name in parts:
        if (folder / name).exists() or (folder / name).is_symlink():
            raise ClaimIntegrityError(
                f"claim integrity: {printable(name)} is there, though {NAME} says that it is withheld",
                "remove either of the two",
            )
    return redaction


def redaction_lines(redaction: Redaction) -> Iterator[str]:
    """Yields a line that says what is withheld from a view; of a whole claim none."""
    if redaction.parts:
        yield f"withheld     {', '.join(redaction.parts)}: this is a view of the claim, enough for an audit's verdict"
