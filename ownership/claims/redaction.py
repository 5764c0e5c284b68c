"""Redacted claims: a claim's folder for an auditor, without the parts that an audit does not need.

`claim.json` is unchanged and names all parts with their digests; `redacted.json` names the missing ones. For a sealed
claim it also holds the leaf hashes of what is missing, so that signature and root are checked as for the whole claim.
"""

from __future__ import annotations

from collections.abc import Mapping
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
"""The probe sets that are the owner's private images."""

REDACTABLE = ("key.json", PRIVATE_PROBES, "projection_head.safetensors")
"""Parts that no primary test needs: the labels of the probes and the predictor stand for the key."""


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is missing from a claim's folder; of a whole claim, nothing.

    Attributes:
        parts: Names of the missing parts.
        leaves: Of a sealed claim, name -> hash of the missing leaves: the parts and the private images.
    """

    parts: tuple[str, ...] = ()
    leaves: Mapping[str, bytes] = field(default_factory=dict)


def redaction_json(claim_sha256: str, redaction: Redaction, *, sealed: bool) -> bytes:
    """Return the content of `redacted.json`."""
    return canonical_json(
        {
            "format_version": FORMAT_VERSION,
            "claim_sha256": claim_sha256,
            "parts": list(redaction.parts),
            "leaves": {name: leaf.hex() for name, leaf in redaction.leaves.items()} if sealed else None,
        }
    )


def open_redaction(folder: Path, content: Mapping[str, Any], leaves: int | None) -> Redaction:
    """Return what is redacted from a claim's folder, after checking `redacted.json`.

    Args:
        folder: The claim's folder.
        content: Content of `claim.json`, which matches its own digest.
        leaves: Signed number of leaves of the Merkle tree; None if the claim is not sealed. `Seal.check_tree` checks
            that the leaves in `redacted.json` lead to the signed root.

    Raises:
        ClaimIntegrityError: If the file differs from what this claim requires, or a redacted part is in the folder.
    """
    path = folder / NAME
    if not path.exists() and not path.is_symlink():
        return Redaction()
    if path.is_symlink():
        raise ClaimIntegrityError(f"claim integrity: {NAME} is a link", "get the original copy")
    stored = parse_canonical(read_bytes(path, ClaimIntegrityError, "claim"), ClaimIntegrityError, f"claim: {NAME}")
    wrong = ClaimIntegrityError(f"claim integrity: {NAME} is not that of this claim", "get the original copy")
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
                f"claim integrity: {printable(name)} is there, though {NAME} says that it is redacted",
                "remove either of the two",
            )
    return redaction


def redaction_detail(redaction: Redaction) -> str:
    """Return in words which parts are redacted."""
    return f"{', '.join(redaction.parts)}: a redacted copy of the claim, enough for an audit's verdict"
