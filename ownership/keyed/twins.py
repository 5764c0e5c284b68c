"""Twins: encoders of one recipe, committed to together; an authority's signature picks the one that is deployed.

Order of events (docs/explanation/twins.md):

1. The owner trains m encoders with one key and commits to them: to their files, and to their representations of the
   key's probes.
2. A timestamp authority signs the commitment. The *pick* is a function of commitment and signature. Or the commitment
   names a future round of a public randomness beacon, and the pick follows from the signature of that.
3. The owner deploys the picked encoder and keeps the others secret.

The scores of a suspect against the m twins do not depend on the pick (`ownership.keyed.twin_test`), so its rank is
exact for every suspect that does not depend on it. Nothing is picked without a signature.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ownership.attestation.beacon import BeaconRound
from ownership.attestation.timestamps import Timestamp
from ownership.errors import ClaimError
from ownership.io.canonical import base64_text, canonical_json, sha256, unbase64
from ownership.keyed.commitment import Commitment
from ownership.keyed.pool import KeyMaterial, digests_of

FORMAT_VERSION = 1
LEAST, MOST = 2, 128
"""Fewest and most twins of one commitment."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """One of the encoders that are committed to.

    Attributes:
        encoder: SHA-256 of its file.
        representations: SHA-256 of the file with its representations of the key's probes.
    """

    encoder: str
    representations: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinCommitment(Commitment):
    """The commitment to m twins, and the signature that picks one of them.

    Attributes:
        probes: SHA-256 of the digests of the probes, in their order (`probes_sha256`).
        recipe: What the twins have in common: architecture, training, data. Its digest alone is published.
        twins: The twins, in ascending order of `encoder`, so that the owner does not choose their order.
        beacon: Round of a public randomness beacon that picks a twin; None if the anchor does.
        anchor: Reply of a timestamp authority (RFC 3161) to the commitment; None before, or without one.
    """

    OF = "twins"

    probes: str
    recipe: Mapping[str, Any]
    twins: tuple[Twin, ...]

    def __post_init__(self) -> None:
        if not LEAST <= len(self.twins) <= MOST:
            raise ClaimError(f"{len(self.twins)} encoders are no twins", f"commit to {LEAST} to {MOST} of them")
        names = [t.encoder for t in self.twins]
        if names != sorted(set(names)):
            raise ClaimError(
                "an encoder occurs twice among the twins", "give each train folder once, with its own --seed"
            )
        stated = (self.probes, *names, *(t.representations for t in self.twins))
        if not all(_DIGEST.fullmatch(x) for x in stated):
            raise ClaimError("twins: a digest is malformed", "restore the original")

    @property
    def commitment(self) -> bytes:
        """Return the bytes that are published and timestamped before the pick exists."""
        return canonical_json(
            {
                "turnmark_twins": FORMAT_VERSION,
                "probes": self.probes,
                "recipe_sha256": sha256(canonical_json(dict(self.recipe))),
                "twins": [{"encoder": t.encoder, "representations": t.representations} for t in self.twins],
                **self.named_round(),
            }
        )

    @property
    def picked(self) -> int | None:
        """Return the index of the twin to deploy; None before there is a signature.

        It is SHA-256 of commitment and `signature`, modulo the number of twins.
        """
        if self.signature is None:
            return None
        stated = [b"turnmark-twins-1", self.commitment, self.signature]
        message = b"".join(len(part).to_bytes(8, "big") + part for part in stated)
        return int.from_bytes(hashlib.sha256(message).digest(), "big") % len(self.twins)

    def binds(self, stamped: Timestamp | None) -> bool:
        """Return whether the owner cannot have picked: a trusted authority did, or a round after it stamped.

        Args:
            stamped: The content of the anchor, checked against root certificates.
        """
        return stamped is not None and stamped.trusted and self.stamped_before_round(stamped)

    def to_dict(self) -> dict[str, Any]:
        """Return the commitment as JSON-ready values, with recipe, round and anchor."""
        return {
            "format_version": FORMAT_VERSION,
            "probes": self.probes,
            "recipe": dict(self.recipe),
            "twins": [{"encoder": t.encoder, "representations": t.representations} for t in self.twins],
            **self.stored_round(),
            "anchor": None if self.anchor is None else base64_text(self.anchor),
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> TwinCommitment:
        """Return the commitment that `to_dict` stored.

        Raises:
            ClaimError: If a field is missing, unknown or malformed.
            ClaimIntegrityError: If the beacon's signature is not that of the round.
        """
        try:
            version, recipe, anchor = value["format_version"], value["recipe"], value["anchor"]
            if type(version) is not int or version != FORMAT_VERSION or not isinstance(recipe, dict):
                raise ClaimError("twins: an unknown format version, or no recipe", "update turnmark")
            found = cls(
                probes=str(value["probes"]),
                recipe=recipe,
                twins=tuple(
                    Twin(encoder=str(t["encoder"]), representations=str(t["representations"])) for t in value["twins"]
                ),
                beacon=BeaconRound.from_dict(value["beacon"]) if "beacon" in value else None,
                anchor=None if anchor is None else unbase64(anchor),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise ClaimError("twins: a field is missing or malformed", "restore the original") from e
        if found.to_dict() != value:
            raise ClaimError("twins: a field is unknown or malformed", "restore the original")
        return found


def probes_sha256(material: KeyMaterial) -> str:
    """Return the SHA-256 of the digests of a key's probes, in their order."""
    return sha256(digests_of(material.probes))
