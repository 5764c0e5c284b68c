"""The folder of a claim as bytes: the rules of loading (docs/format.md).

1. `claim.json` is canonical JSON, matches its own `content_sha256` and has a known format version.
2. If the claim is sealed, the owner's signature is good and of this claim, and everything leads to the signed root.
3. Every part that `claim.json` names is in the folder or properly redacted, and matches its SHA-256. No other file is
   read.
4. Only then are tensors parsed and numbers used, by `Claim.parse`.

The exception to rule 4: the private images of a sealed claim are leaves of the Merkle tree, so rule 2 reads them after
their part matched its digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ownership.attestation.statement import read_replies
from ownership.claims.redaction import Redaction, open_redaction
from ownership.claims.seal import Seal, leaf_digests, leaf_hashes, open_seal, read_salts
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.io.canonical import canonical_json, parse_canonical, sha256
from ownership.io.files import new_folder, read_bytes, refuse_existing, write_bytes
from ownership.io.text import printable

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedFolder:
    """The content of a claim's folder, in which every check passed.

    Attributes:
        claim_json: Content of `claim.json`.
        content: The same, parsed.
        parts: Content of the parts in the folder, by name.
        redaction: What is redacted.
        seal: The seal, its timestamps checked against no root certificates; None if the claim is not sealed.
        salts: Salts of the leaves in the folder, by name; empty if the claim is not sealed.
    """

    claim_json: bytes = field(repr=False)
    content: dict[str, Any] = field(repr=False)
    parts: Mapping[str, bytes] = field(repr=False)
    redaction: Redaction
    seal: Seal | None
    salts: Mapping[str, bytes] = field(repr=False)

    @property
    def sha256(self) -> str:
        """Return the claim's content digest."""
        return str(self.content["content_sha256"])

    def leaf_digests(self) -> dict[str, str]:
        """Return the SHA-256 of everything in the folder that a seal commits to, by name."""
        return leaf_digests(self.claim_json, self.parts)


def open_folder(folder: Path | str) -> VerifiedFolder:
    """Return the content of a claim's folder after checking it by rules 1 to 3.

    Raises:
        ClaimError: If the folder is no claim, or a claim of an unknown format version.
        ClaimIntegrityError: If anything in it was changed.
    """
    folder = Path(folder)
    if not (folder / "claim.json").is_file() and not (folder / "seal").exists():
        raise ClaimError(f"{printable(folder, 300)} is no claim: it has no claim.json", "give the claim's folder")
    claim_json = read_bytes(folder / "claim.json", ClaimIntegrityError, "claim")
    content = _content(claim_json)
    seal = open_seal(folder, content)
    _check_version(content)
    redaction = open_redaction(folder, content, None if seal is None else seal.leaves)
    parts = {
        name: _part(folder, name, entry) for name, entry in content["parts"].items() if name not in redaction.parts
    }
    salts: dict[str, bytes] = {}
    if seal is not None:
        digests = leaf_digests(claim_json, parts)
        salts = read_salts(folder, digests)
        seal.check_tree(leaf_hashes(digests, salts, redaction.leaves))
        seal = replace(seal, replies=read_replies(folder, ClaimIntegrityError)).under(())
    return VerifiedFolder(
        claim_json=claim_json, content=content, parts=parts, redaction=redaction, seal=seal, salts=salts
    )


def write_folder(folder: Path, content: Mapping[str, Any], parts: Mapping[str, bytes]) -> str:
    """Write a claim to a new folder, completely or not at all, and return its content digest.

    Args:
        folder: The folder to make.
        content: Content of `claim.json`, without format version, parts and digest.
        parts: Content of the parts, by name.

    Raises:
        ClaimError: If the folder exists and is not empty.
        OwnershipError: If it cannot be written.
    """
    refuse_existing(folder, ClaimError)
    entries = {name: {"sha256": sha256(data), "bytes": len(data)} for name, data in sorted(parts.items())}
    whole = {**content, "format_version": FORMAT_VERSION, "parts": entries}
    digest = sha256(canonical_json(whole))
    with new_folder(folder) as new:
        for name, data in parts.items():
            write_bytes(new / name, data, secret=True)
        write_bytes(new / "claim.json", canonical_json({**whole, "content_sha256": digest}), secret=True)
    return digest


def _content(data: bytes) -> dict[str, Any]:
    """Rule 1: `claim.json` is canonical and matches its own digest."""
    damaged = ClaimIntegrityError(
        "claim integrity: claim.json does not match its own digest", "it was changed or damaged; get the original"
    )
    try:
        content = parse_canonical(data, ClaimError, "claim: claim.json")
    except ClaimError as e:
        raise damaged from e
    stated = content.pop("content_sha256", None)
    if sha256(canonical_json(content)) != stated:
        raise damaged
    return {**content, "content_sha256": stated}


def _check_version(content: Mapping[str, Any]) -> None:
    version = content.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION or not isinstance(content.get("parts"), dict):
        raise ClaimError(
            f"claim of format version {printable(version)}, this turnmark reads version {FORMAT_VERSION}",
            "update turnmark",
        )


def _part(folder: Path, name: str, entry: object) -> bytes:
    """Rule 3: the part is a file inside the folder and matches its digest."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or path.is_symlink() or not path.is_file():
        raise ClaimIntegrityError(f"claim integrity: {printable(name)} is missing", "get the original claim")
    data = read_bytes(path, ClaimIntegrityError, "claim")
    if not isinstance(entry, dict) or sha256(data) != entry.get("sha256"):
        raise ClaimIntegrityError(
            f"claim integrity: {printable(name)} does not match its digest", "it was changed or damaged"
        )
    return data
