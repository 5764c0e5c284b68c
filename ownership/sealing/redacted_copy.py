"""The auditor's view of a claim: everything an audit's verdict needs, nothing of the owner's private images."""

from __future__ import annotations

from pathlib import Path

from ownership.attestation.merkle import salted_leaf
from ownership.claims.claim import Claim
from ownership.claims.redaction import NAME, PRIVATE_PROBES, REDACTABLE, Redaction, redaction_json
from ownership.claims.seal import read_digests, read_salts, salts_json
from ownership.errors import ClaimError
from ownership.io.files import new_folder, read_bytes, refuse_existing, write_bytes


def write_redacted_copy(folder: Path, out: Path) -> Redaction:
    """Writes a view of a claim to a new folder, whole or not at all; the claim stays as it is.

    Redacted are the private images, the exact key and the projection head; of a sealed claim also the salts of all
    these, without which nobody can tell whether a guess at them is right. An audit of the view computes everything but
    dataset inference, and comes to the same verdict by the same numbers.

    Args:
        folder: the whole claim's; it is verified first.
        out: the folder to make.

    Returns:
        What is withheld.

    Raises:
        ClaimIntegrityError: if the claim does not verify.
        ClaimError: if `out` exists, the claim is a view already, or it does not keep private images apart.
        OwnershipError: if it cannot be written.
    """
    refuse_existing(out)
    claim = Claim.load(folder)
    if claim.redaction.parts:
        raise ClaimError("this is a view of a claim already", "copy its folder")
    content, digests = read_digests(folder, claim.redaction)
    if PRIVATE_PROBES not in content["parts"]:
        raise ClaimError(
            "this claim does not keep private images apart: claims of format 1 and 2 have them among the other probes",
            "build it anew, or give the whole claim",
        )
    parts = tuple(name for name in REDACTABLE if name in content["parts"])
    shown = [name for name in content["parts"] if name not in parts]
    files = {name: read_bytes(folder / name, ClaimError, "claim") for name in ("claim.json", *shown)}
    redaction = Redaction(parts)
    if claim.seal is not None:
        salts = read_salts(folder, digests)
        hidden = [name for name in digests if name in parts or name.startswith("private/")]
        leaves = {name: salted_leaf(salts[name], name, bytes.fromhex(digests[name])) for name in hidden}
        redaction = Redaction(parts, leaves)
        files["seal/salts.json"] = salts_json({name: salt for name, salt in salts.items() if name not in leaves})
        public = ("owner.pub", "statement.dsse.json", *(f"timestamps/{name}" for name in claim.seal.replies))
        files |= {f"seal/{name}": read_bytes(folder / "seal" / name, ClaimError, "seal") for name in public}
    files[NAME] = redaction_json(claim.sha256, redaction, sealed=claim.seal is not None)
    with new_folder(out) as new:
        for name, data in files.items():
            write_bytes(new / name, data, secret=True)
        Claim.load(new)
    return redaction
