"""Verifying a sealed claim, check by check; what fails first is what is said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ownership.attestation.statement import ENVELOPE, verify_signature, verify_times
from ownership.attestation.timestamps import need_roots
from ownership.claims.claim import Claim
from ownership.claims.redaction import NAME, Redaction, redaction_lines
from ownership.claims.seal import PUBLIC_KEY
from ownership.errors import ClaimIntegrityError
from ownership.io.files import read_json
from ownership.io.text import printable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def verify_claim(
    folder: Path, *, public_key: Path | None = None, roots: Sequence[Certificate] = (), before: datetime | None = None
) -> Iterator[str]:
    """Checks a sealed claim, and yields a line for every check that is passed.

    Args:
        folder: the claim's.
        public_key: file of the owner's public key, from the owner; without it, anybody may have sealed the claim.
        roots: certificates of timestamp authorities that the verifier trusts.
        before: a trusted timestamp must be earlier.

    Raises:
        ClaimIntegrityError: at the first check that fails.
        OwnershipError: if the public key cannot be read, or `before` is asked for without roots.
    """
    need_roots(before, roots)
    claim = Claim.load(folder)
    yield f"claim        {claim.sha256}: every file matches its digest"
    yield from redaction_lines(claim.redaction)
    if claim.seal is None:
        raise ClaimIntegrityError("this claim has no seal", "turnmark claim seal")
    _refuse_extras(folder, claim.redaction)
    yield "files        nothing else lies in its folder"
    yield from verify_signature(claim.seal, public_key)
    hidden = len(claim.redaction.leaves)
    salts = f"all {claim.seal.leaves} leaves" if not hidden else f"{claim.seal.leaves - hidden} leaves"
    yield f"Merkle root  {claim.seal.root}: the salts of {salts} lead to it" + (
        f", with {hidden} leaves that are withheld" if hidden else ""
    )
    yield from verify_times(claim.seal.under(roots).timestamps, before, claim.seal.error)


def _refuse_extras(folder: Path, redaction: Redaction) -> None:
    """Raises ClaimIntegrityError for a file that neither the claim nor its seal accounts for."""
    known = {*read_json(folder / "claim.json", ClaimIntegrityError, "claim")["parts"], "claim.json"}
    known |= {NAME} if redaction.parts else set()
    known |= {f"seal/{name}" for name in (ENVELOPE, PUBLIC_KEY, "salts.json")}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in known and not name.startswith("seal/timestamps/"):
            raise ClaimIntegrityError(f"claim integrity: {printable(name)} is not covered", "remove it from the folder")
