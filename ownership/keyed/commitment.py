"""A commitment, and the signature that something then follows from: a key, or the pick of twins.

The signature is that of the timestamp authority that stamps the commitment; or, where the commitment names a future
round of a public randomness beacon, that of the round, and a stamp only dates the commitment. An authority signs as
often as it is asked. A round has one signature, so one commitment then gives one key, or one pick.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ownership.attestation.beacon import BeaconRound
from ownership.attestation.timestamps import Timestamp, read_reply, token_signature
from ownership.errors import ClaimError
from ownership.io.canonical import sha256

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment(ABC):
    """What is committed to, the round that it names, and its anchor.

    Attributes:
        OF: What it is, for messages.
        beacon: Round of a public randomness beacon that the commitment names; None for none.
        anchor: Reply of a timestamp authority (RFC 3161) to the commitment; None without one.
    """

    OF: ClassVar[str]
    beacon: BeaconRound | None = None
    anchor: bytes | None = field(default=None, repr=False)

    @property
    @abstractmethod
    def commitment(self) -> bytes:
        """The bytes that are published and timestamped first; they reveal no secret."""

    @property
    def commitment_sha256(self) -> str:
        """Return the SHA-256 of the commitment, by which people name it."""
        return sha256(self.commitment)

    @property
    def waits(self) -> bool:
        """Whether the round that the commitment names is not signed yet."""
        return self.beacon is not None and self.beacon.signature is None

    @property
    def signature(self) -> bytes | None:
        """Return the signature that the key, or the pick, follows from; None as long as there is none.

        It is the beacon's, if the commitment names a round; else the one in the anchor, of which only what the
        authority alone determines counts (`token_signature`).
        """
        if self.beacon is not None:
            return self.beacon.signature
        return None if self.anchor is None else token_signature(self.anchor, ClaimError)

    def stamped_before_round(self, stamped: Timestamp | None) -> bool:
        """Return whether a stamp of the commitment is earlier than the round that it names, if it names one.

        Args:
            stamped: The content of the anchor; None without one.
        """
        return self.beacon is None or (stamped is not None and stamped.time < self.beacon.time)

    def named_round(self) -> dict[str, Any]:
        """Return what the commitment says of a round, as JSON-ready values; empty if it names none."""
        return {} if self.beacon is None else {"beacon": self.beacon.named()}

    def stored_round(self) -> dict[str, Any]:
        """Return the round with its signature, as JSON-ready values; empty if the commitment names none."""
        return {} if self.beacon is None else {"beacon": self.beacon.to_dict()}

    def drawn(self, round_: BeaconRound) -> Self:
        """Return it with the round that its commitment names, once that is signed."""
        return replace(self, beacon=round_)

    def anchored(self, reply: bytes) -> Self:
        """Return it with the reply of a timestamp authority to its commitment."""
        return replace(self, anchor=reply)

    def timestamp(self, roots: Sequence[Certificate] = ()) -> Timestamp | None:
        """Return the content of the anchor, after checking that it covers the commitment; None without one.

        Args:
            roots: Root certificates that its authority must chain to. With none, its authority is not checked.

        Raises:
            ClaimIntegrityError: If it covers other bytes, is malformed, or no trusted authority vouches for it.
        """
        if self.anchor is None:
            return None
        return read_reply(self.anchor, self.commitment, roots, name=f"of the {self.OF}", of="commitment")
