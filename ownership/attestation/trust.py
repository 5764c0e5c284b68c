"""What a verifier trusts (a public key, root certificates, a date), and the checks of a signed statement under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ownership.attestation.keys import fingerprint, load_public_key
from ownership.attestation.statement import UNTIMESTAMPED, SignedStatement, timestamp_detail
from ownership.attestation.timestamps import Timestamp
from ownership.errors import OwnershipError
from ownership.io.checks import Check, Verification
from ownership.io.files import read_bytes
from ownership.io.text import printable

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementVerification(Verification):
    """The checks that a signed statement passed.

    Attributes:
        signer: Fingerprint of the key that signed the statement.
        timestamps: Its timestamps, earliest first; `trusted` is set where root certificates were given.
    """

    signer: str
    timestamps: tuple[Timestamp, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What a verifier trusts beforehand; every part is optional, and what is missing is not checked.

    Attributes:
        signer: Fingerprint of the signer's public key. Without it, anyone may have signed.
        roots: Root certificates of timestamp authorities. Without them, anyone may have made the timestamps.
        before: The time that a trusted timestamp must precede.
    """

    signer: str | None = None
    roots: Sequence[Certificate] = ()
    before: datetime | None = None

    def __post_init__(self) -> None:
        if self.before is not None and not self.roots:
            raise OwnershipError(
                "a date needs the roots that you trust: anyone can make a timestamp",
                "--roots FILE.pem",
            )

    @classmethod
    def given(cls, public_key: Path | str | None, roots: Sequence[Certificate], before: datetime | None) -> Self:
        """Return the trust that a verifier states.

        Args:
            public_key: File of the signer's public key, received from the signer.
            roots: Root certificates of timestamp authorities.
            before: The time that a trusted timestamp must precede.

        Raises:
            OwnershipError: If the public key cannot be read, or a date is given without root certificates.
        """
        if public_key is None:
            return cls(roots=roots, before=before)
        data = read_bytes(Path(public_key), OwnershipError, "public key")
        key = load_public_key(data, OwnershipError, f"public key: {printable(public_key, 300)}")
        return cls(signer=fingerprint(key), roots=roots, before=before)

    def verify(self, statement: SignedStatement) -> StatementVerification:
        """Return the checks of a statement: its signer and its timestamps.

        Args:
            statement: An opened statement, whose signature was therefore verified.

        Raises:
            OwnershipError: `statement.error`, at the first check that fails.
        """
        checks = [Check("signature", f"good, of {statement.covers}, by the key {statement.public_key_sha256}")]
        if self.signer is None:
            checks.append(Check("key", f"NOT compared with the {statement.signer}'s: give --public-key"))
        elif self.signer != statement.public_key_sha256:
            raise statement.error(
                f"seal: signed with the key {statement.public_key_sha256}, not with the {statement.signer}'s, "
                f"{self.signer}",
                "another key signed this",
            )
        else:
            checks.append(Check("key", "it is the given one"))
        timestamps = statement.under(self.roots).timestamps
        checks += [Check("timestamp", timestamp_detail(t.time.isoformat(), t.authority, t.trusted)) for t in timestamps]
        if not timestamps:
            checks.append(Check("timestamp", UNTIMESTAMPED))
        if self.before is not None:
            checks.append(self._date(statement, timestamps, self.before))
        return StatementVerification(checks=tuple(checks), signer=statement.public_key_sha256, timestamps=timestamps)

    def _date(self, statement: SignedStatement, timestamps: Sequence[Timestamp], before: datetime) -> Check:
        if not any(t.trusted and t.time < before for t in timestamps):
            when = (
                f"the first timestamp is of {timestamps[0].time.isoformat()}" if timestamps else "there is no timestamp"
            )
            raise statement.error(
                f"seal: not shown to be earlier than {before.isoformat()}: {when}",
                "a seal proves its own age only from its first trusted timestamp on",
            )
        return Check("date", f"earlier than {before.isoformat()}")
