"""Verifying a sealed claim, check by check; what fails first is what is said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ownership.claim import Claim
from ownership.errors import ClaimIntegrityError, OwnershipError, printable
from ownership.files import read_bytes, read_json
from ownership.seal import UNTIMESTAMPED, Seal, timestamp_line
from ownership.signing import fingerprint, load_public_key
from ownership.timestamps import Timestamp, need_roots
from ownership.withheld import NAME, Withheld

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
    yield from withheld_lines(claim.withheld)
    if claim.seal is None:
        raise ClaimIntegrityError("this claim has no seal", "turnmark claim seal")
    _refuse_extras(folder, claim.withheld)
    yield "files        nothing else lies in its folder"
    yield from verify_statement(claim.seal, public_key)
    hidden = len(claim.withheld.leaves)
    salts = f"all {claim.seal.leaves} leaves" if not hidden else f"{claim.seal.leaves - hidden} leaves"
    yield f"Merkle root  {claim.seal.root}: the salts of {salts} lead to it" + (
        f", with {hidden} leaves that are withheld" if hidden else ""
    )
    yield from verify_times(claim.seal.under(roots).timestamps, before)


def withheld_lines(withheld: Withheld) -> Iterator[str]:
    """Yields a line that says what is withheld from a view; of a whole claim none."""
    if withheld.parts:
        yield f"withheld     {', '.join(withheld.parts)}: this is a view of the claim, enough for an audit's verdict"


def verify_statement(seal: Seal, public_key: Path | None) -> Iterator[str]:
    """Yields a line for signature and key; raises ClaimIntegrityError if it is not the owner's key."""
    yield f"signature    good, of claim and plan, by the key {seal.public_key_sha256}"
    if public_key is None:
        yield "key          NOT compared with the owner's: give --public-key"
        return
    data = read_bytes(public_key, OwnershipError, "public key")
    owner = fingerprint(load_public_key(data, OwnershipError, f"public key: {printable(public_key, 300)}"))
    if owner != seal.public_key_sha256:
        raise ClaimIntegrityError(
            f"seal: signed with the key {seal.public_key_sha256}, not with the owner's, {owner}",
            "somebody else sealed this claim",
        )
    yield "key          it is the one given"


def verify_times(timestamps: Sequence[Timestamp], before: datetime | None) -> Iterator[str]:
    """Yields a line for every timestamp; raises ClaimIntegrityError if none is trusted and earlier than `before`."""
    for t in timestamps:
        yield timestamp_line(t.time.isoformat(), t.authority, trusted=t.trusted)
    if not timestamps:
        yield UNTIMESTAMPED
    if before is None:
        return
    early = [t for t in timestamps if t.trusted and t.time < before]
    if not early:
        when = f"the first timestamp is of {timestamps[0].time.isoformat()}" if timestamps else "there is no timestamp"
        raise ClaimIntegrityError(
            f"seal: not shown to be earlier than {before.isoformat()}: {when}",
            "a claim proves itself only from its first trusted timestamp on",
        )
    yield f"date         earlier than {before.isoformat()}"


def _refuse_extras(folder: Path, withheld: Withheld) -> None:
    """Raises ClaimIntegrityError for a file that neither the claim nor its seal accounts for."""
    known = {*read_json(folder / "claim.json", ClaimIntegrityError, "claim")["parts"], "claim.json"}
    known |= {NAME} if withheld.parts else set()
    known |= {f"seal/{name}" for name in ("statement.dsse.json", "owner.pub", "salts.json")}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in known and not name.startswith("seal/timestamps/"):
            raise ClaimIntegrityError(f"claim integrity: {printable(name)} is not covered", "remove it from the folder")
