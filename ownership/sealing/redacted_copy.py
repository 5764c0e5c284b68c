"""Redacted copies of a claim, for auditors: everything an audit's verdict needs, without the owner's private images."""

from __future__ import annotations

from pathlib import Path

from ownership.attestation.merkle import salted_leaf
from ownership.attestation.statement import ENVELOPE
from ownership.claims.claim import Claim
from ownership.claims.redaction import NAME, REDACTABLE, Redaction, redaction_json
from ownership.claims.seal import PUBLIC_KEY, SALTS, salts_json
from ownership.claims.storage import VerifiedFolder, open_folder
from ownership.errors import ClaimError
from ownership.io.files import new_folder, refuse_existing, write_bytes


def write_redacted_copy(folder: Path | str, out: Path | str) -> Redaction:
    """Write a redacted copy of a claim to a new folder, completely or not at all.

    The copy lacks the private images, the exact key and the projection head. The copy of a sealed claim also lacks
    their salts, without which a guess at a redacted part cannot be confirmed. An audit of the copy skips dataset
    inference, and reaches the same verdict by the same numbers.

    Args:
        folder: The folder of the whole claim. The claim is verified first.
        out: The folder to make.

    Returns:
        What is redacted.

    Raises:
        ClaimIntegrityError: If the claim does not verify.
        ClaimError: If `out` exists, or the claim is a redacted copy already.
        OwnershipError: If `out` cannot be written.
    """
    folder, out = Path(folder), Path(out)
    refuse_existing(out, ClaimError)
    verified = open_folder(folder)
    Claim.parse(verified)
    if verified.redaction.parts:
        raise ClaimError("this is a redacted copy of a claim already", "copy its folder")
    redaction = _redaction(verified)
    files = {name: data for name, data in verified.parts.items() if name not in redaction.parts}
    files["claim.json"] = verified.claim_json
    files[NAME] = redaction_json(verified.sha256, redaction, sealed=verified.seal is not None)
    if verified.seal is not None:
        shown = {name: salt for name, salt in verified.salts.items() if name not in redaction.leaves}
        files[f"seal/{SALTS}"] = salts_json(shown)
        files[f"seal/{ENVELOPE}"] = verified.seal.envelope
        files[f"seal/{PUBLIC_KEY}"] = verified.seal.public_key
        files |= {f"seal/timestamps/{name}": reply for name, reply in verified.seal.replies.items()}
    with new_folder(out) as new:
        for name, data in files.items():
            write_bytes(new / name, data, secret=True)
        Claim.load(new)
    return redaction


def _redaction(verified: VerifiedFolder) -> Redaction:
    parts = tuple(name for name in REDACTABLE if name in verified.parts)
    if verified.seal is None:
        return Redaction(parts)
    digests = verified.leaf_digests()
    hidden = [name for name in digests if name in parts or name.startswith("private/")]
    leaves = {name: salted_leaf(verified.salts[name], name, bytes.fromhex(digests[name])) for name in hidden}
    return Redaction(parts, leaves)
