"""A commitment that an authority stamps, so that something follows from its signature: a key, or the pick of twins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self

from ownership.attestation.timestamps import Timestamp, read_reply
from ownership.io.canonical import sha256

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment(ABC):
    """What is committed to, and anchored by a timestamp authority's reply.

    Attributes:
        OF: what it is, for messages.
        anchor: Reply of a timestamp authority (RFC 3161) to the commitment; None without one.
    """

    OF: ClassVar[str]
    anchor: bytes | None = field(default=None, repr=False)

    @property
    @abstractmethod
    def commitment(self) -> bytes:
        """The bytes that are published and timestamped first; they reveal no secret."""

    @property
    def commitment_sha256(self) -> str:
        """Return the SHA-256 of the commitment, by which people name it."""
        return sha256(self.commitment)

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
