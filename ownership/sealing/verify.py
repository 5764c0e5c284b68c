"""Verifying a sealed claim: every file, the signature, the Merkle tree, the timestamps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ownership.attestation.statement import ENVELOPE
from ownership.attestation.timestamps import Timestamp
from ownership.attestation.trust import StatementVerification, Trust
from ownership.claims.claim import Claim
from ownership.claims.redaction import NAME, redaction_detail
from ownership.claims.seal import PUBLIC_KEY, SALTS, Seal
from ownership.claims.storage import VerifiedFolder, open_folder
from ownership.errors import ClaimIntegrityError
from ownership.io.checks import Check
from ownership.io.text import printable
from ownership.keyed.commitment import Commitment

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimVerification(StatementVerification):
    """The checks that a sealed claim passed.

    Attributes:
        digest: The claim's content digest (SHA-256, hexadecimal).
    """

    digest: str


def verify_claim(
    folder: Path | str,
    *,
    public_key: Path | str | None = None,
    roots: Sequence[Certificate] = (),
    before: datetime | None = None,
) -> ClaimVerification:
    """Verify a sealed claim.

    Args:
        folder: The claim's folder.
        public_key: File of the owner's public key, received from the owner. Without it, anyone may have sealed the
            claim.
        roots: Root certificates of timestamp authorities that the verifier trusts.
        before: The time that a trusted timestamp must precede.

    Returns:
        The checks that passed, with the claim's digest, its signer and its timestamps.

    Raises:
        ClaimIntegrityError: At the first check that fails.
        ClaimError: If the folder is no claim.
        OwnershipError: If the public key cannot be read, or `before` is given without `roots`.
    """
    folder = Path(folder)
    trust = Trust.given(public_key, roots, before)
    verified = open_folder(folder)
    claim = Claim.parse(verified)
    if verified.seal is None:
        raise ClaimIntegrityError("this claim has no seal", "turnmark claim seal")
    _refuse_extra_files(folder, verified)
    attested = trust.verify(verified.seal)
    checks = [Check("claim", f"{verified.sha256}: every file matches its digest")]
    if verified.redaction.parts:
        checks.append(Check("redacted", redaction_detail(verified.redaction)))
    checks += [
        Check("files", "the folder holds no other file"),
        Check("Merkle root", _root_detail(verified.seal, len(verified.redaction.leaves))),
        *_key_checks(claim, roots),
        *_twins_checks(claim, roots),
        *attested.checks,
    ]
    return ClaimVerification(
        checks=tuple(checks), digest=verified.sha256, signer=attested.signer, timestamps=attested.timestamps
    )


def _key_checks(claim: Claim, roots: Sequence[Certificate]) -> Iterator[Check]:
    """Yield the checks of the key: it was derived again, and draws the probes of the claim from its pool."""
    if claim.material is None:
        return
    key = claim.material.key
    yield Check("key", f"commitment {key.commitment_sha256}; it draws the {key.probes} probes from {key.pool.images}")
    stamped = key.timestamp(roots)
    yield from _beacon_check(key, stamped)
    if stamped is None:
        yield Check("key's anchor", "none: nothing shows when the key was drawn")
        return
    yield Check("key's anchor", _stamped(stamped))


def _beacon_check(of: Commitment, stamped: Timestamp | None) -> Iterator[Check]:
    """Yield the check of the round that a commitment names, if it names one; its signature was verified when loaded."""
    if of.beacon is None:
        return
    detail = f"{of.beacon}, signed at {of.beacon.time.isoformat()}: its signature is the beacon's"
    if not of.stamped_before_round(stamped):
        detail += "; NOT shown here: that the commitment was made before, which its publication would"
    yield Check(f"beacon of the {of.OF}", detail)


def _twins_checks(claim: Claim, roots: Sequence[Certificate]) -> Iterator[Check]:
    """Yield the checks of the twins: their representations are those committed to, and the victim is the one picked."""
    if claim.twins is None:
        return
    of = claim.twins.commitment
    by, stamped = "its anchor" if of.beacon is None else "the beacon", of.timestamp(roots)
    yield Check(
        "twins", f"commitment {of.commitment_sha256}; {by} picks {claim.twins.picked} of {len(of.twins)}, the victim"
    )
    yield from _beacon_check(of, stamped)
    if stamped is not None:
        yield Check("twins' anchor", _stamped(stamped))


def _stamped(of: Timestamp) -> str:
    vouched = "chains to a root you trust" if of.trusted else "was not checked (--roots)"
    return f"{of.time.isoformat()} by {of.authority}; the authority {vouched}"


def _root_detail(seal: Seal, redacted: int) -> str:
    if not redacted:
        return f"{seal.root}: the salts of all {seal.leaves} leaves lead to it"
    return (
        f"{seal.root}: the salts of {seal.leaves - redacted} leaves lead to it, with the hashes of {redacted} redacted "
        "leaves"
    )


def _refuse_extra_files(folder: Path, verified: VerifiedFolder) -> None:
    """Raise ClaimIntegrityError for a file that belongs neither to the claim nor to its seal."""
    known = {*verified.parts, "claim.json", *(f"seal/{name}" for name in (ENVELOPE, PUBLIC_KEY, SALTS))}
    known |= {NAME} if verified.redaction.parts else set()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in known and not name.startswith("seal/timestamps/"):
            raise ClaimIntegrityError(f"claim integrity: {printable(name)} is not covered", "remove it from the folder")
