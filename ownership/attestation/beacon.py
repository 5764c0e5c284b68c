"""Rounds of a public randomness beacon: numbers that no owner could know before a time, and no operator could choose.

The League of Entropy runs drand: about twenty operators hold shares of one signing key, and a threshold of them signs
the number of each round when its time has come. A round has exactly one valid signature, so the operators cannot choose
it, and it stays unknown until its time unless a threshold of them colludes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ownership.attestation.bls import signature_valid
from ownership.attestation.exchange import exchange
from ownership.errors import ClaimError, ClaimIntegrityError, OwnershipError
from ownership.io.canonical import parse_json, unhex
from ownership.io.text import printable


@dataclass(frozen=True, slots=True, kw_only=True)
class BeaconChain:
    """A beacon that Turnmark can verify.

    Attributes:
        name: What its operators call it.
        sha256: Chain hash: SHA-256 of period, genesis, public key, group and name, by which rounds are asked for.
        public_key: Compressed point of G2.
        genesis: Time of round 1, in seconds since 1970.
        period: Seconds between two rounds.
    """

    name: str
    sha256: str
    public_key: bytes = field(repr=False)
    genesis: int
    period: int

    def time_of(self, number: int) -> datetime:
        """Return when a round is signed, in UTC."""
        return datetime.fromtimestamp(self.genesis + (number - 1) * self.period, UTC)

    def first_at(self, time: datetime) -> int:
        """Return the number of the first round that is signed at a time or later."""
        return max(1, 1 - int((self.genesis - time.timestamp()) // self.period))


QUICKNET = BeaconChain(
    name="drand quicknet",
    sha256="52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971",
    public_key=bytes.fromhex(
        "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b"
        "0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
    ),
    genesis=1_692_803_367,
    period=3,
)
"""The chain "quicknet" of the League of Entropy, scheme bls-unchained-g1-rfc9380."""
CHAINS = {QUICKNET.sha256: QUICKNET}


@dataclass(frozen=True, slots=True, kw_only=True)
class BeaconRound:
    """A round of a beacon: named while it lies in the future, with its signature afterwards.

    Attributes:
        chain: The beacon.
        number: Of the round, from 1.
        signature: Of the beacon; None as long as it is only named.
    """

    chain: BeaconChain
    number: int
    signature: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"round {self.number} of {self.chain.name}"

    @property
    def time(self) -> datetime:
        """When the round is signed, in UTC. Its signature is unknown before."""
        return self.chain.time_of(self.number)

    @property
    def path(self) -> str:
        """The round's path at every relay of the beacon."""
        return f"{self.chain.sha256}/public/{self.number}"

    def signed(self, signature: bytes) -> BeaconRound:
        """Return the round with its signature.

        Raises:
            ClaimIntegrityError: If it is not the beacon's signature of this round.
        """
        message = hashlib.sha256(self.number.to_bytes(8, "big")).digest()
        if not signature_valid(self.chain.public_key, message, signature):
            raise ClaimIntegrityError(
                f"this is not the beacon's signature of {self}",
                f"ask a relay of the beacon for {self.path}",
            )
        return BeaconRound(chain=self.chain, number=self.number, signature=signature)

    def named(self) -> dict[str, Any]:
        """Return what a commitment names, as JSON-ready values."""
        return {"chain": self.chain.sha256, "round": self.number}

    def to_dict(self) -> dict[str, Any]:
        """Return the round as JSON-ready values."""
        return {**self.named(), "signature": None if self.signature is None else self.signature.hex()}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> BeaconRound:
        """Return the round that `to_dict` stored, its signature verified.

        Raises:
            KeyError, TypeError, ValueError: If a field is missing or malformed.
            ClaimError: If the chain is unknown.
            ClaimIntegrityError: If the signature is not the beacon's.
        """
        number = value["round"]
        if type(number) is not int or not 1 <= number < 2**62:
            raise ValueError("not the number of a round")
        if value["chain"] not in CHAINS:
            raise ClaimError(f"the beacon {printable(value['chain'])!r} is unknown", "update turnmark")
        named = cls(chain=CHAINS[value["chain"]], number=number)
        return named if value["signature"] is None else named.signed(unhex(value["signature"]))


def future_round(time: datetime, now: datetime, chain: BeaconChain = QUICKNET) -> BeaconRound:
    """Return the first round at a time or later, which has to lie in the future.

    Raises:
        OwnershipError: If it does not: its signature is known already, and keys could be tried.
    """
    found = BeaconRound(chain=chain, number=chain.first_at(time))
    if found.time <= now:
        raise OwnershipError(
            f"the round of {found.time.isoformat()} is signed already",
            "name a round of the future, with time enough to publish the commitment before",
        )
    return found


def read_round(reply: bytes, named: BeaconRound) -> BeaconRound:
    """Return a named round with the signature in a relay's reply, verified.

    Args:
        reply: JSON with `round` and `signature`; what else it holds is not used.
        named: The round that was committed to.

    Raises:
        OwnershipError: If the reply is malformed or of another round.
        ClaimIntegrityError: If its signature is not the beacon's.
    """
    value = parse_json(reply, OwnershipError, "the beacon's reply")
    try:
        number, signature = value["round"], unhex(value["signature"])
    except (KeyError, TypeError, ValueError) as e:
        raise OwnershipError("the beacon's reply has no round or no signature", f"ask for {named.path}") from e
    if number != named.number:
        raise OwnershipError(
            f"the reply is of round {printable(number)}, and the commitment names round {named.number}",
            f"ask for {named.path}",
        )
    return named.signed(signature)


def ask_beacon(url: str, named: BeaconRound) -> BeaconRound:
    """Return a named round with its signature, from a relay of the beacon.

    Args:
        url: Address of the relay, such as https://api.drand.sh.
        named: The round that was committed to.

    Raises:
        OwnershipError: If the round is still to come, or there is no usable reply.
        ClaimIntegrityError: If its signature is not the beacon's.
    """
    if named.time > datetime.now(UTC):
        raise OwnershipError(f"{named} is signed at {named.time.isoformat()}", "wait until then")
    reply = exchange(url.rstrip("/") + "/" + named.path, what="a relay of the beacon", instead="--beacon-reply")
    return read_round(reply, named)
