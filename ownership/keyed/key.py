"""The key of the keyed watermark: a secret, what it was committed to, and what is derived from both.

Order of events (docs/explanation/keyed-watermark.md):

1. The owner draws a secret and publishes a *commitment*: a digest of the secret, of the pool of public images, of an
   encoder's features of them, if any, and the number of directions. No key exists yet.
2. A timestamp authority signs the commitment. The *anchor* is its reply.
3. The *seed* is a function of secret, commitment and anchor. It fixes the feature maps, the frame, and which images of
   the pool are probes.

An owner can therefore not draw keys until one fits a known suspect: each try is a commitment, signed at a time.
Without an anchor the seed follows from the secret alone, and such a search is not excluded.

A commitment may also name a future round of a public randomness beacon. The seed then follows from the round's
signature in place of the authority's, and there is no key before. It shows no date of the commitment: an anchor does,
or its publication.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from ownership.attestation.beacon import BeaconRound
from ownership.errors import ClaimError
from ownership.io.canonical import base64_text, canonical_json, sha256, unbase64, unhex
from ownership.keyed.commitment import Commitment

FORMAT_VERSION = 1
SECRET_BYTES = 32
MIN_PROBES = 100
"""Fewest probes that the feature maps can be calibrated on."""
DIRECTIONS = 4
"""Marked directions of each feature map where the owner chooses nothing else."""
MOST_DIRECTIONS = 64
PROBES = 2000
"""Probes that a key draws from its pool where the owner chooses nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The public images that probes are drawn from, named before the key exists.

    Attributes:
        sha256: SHA-256 of the digests of the images, one after the other (`pool_of`).
        images: Number of images.
        shape: Channels, height and width of an image.
    """

    sha256: str
    images: int
    shape: tuple[int, int, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the pool as JSON-ready values."""
        return {"sha256": self.sha256, "images": self.images, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """An encoder's features of the images of a pool, named before the key exists (`ownership.keyed.features`).

    Attributes:
        sha256: SHA-256 of the digests of the images' features, one after the other.
        length: Length of the encoder's representations.
        encoder_sha256: SHA-256 of the encoder's file.
    """

    sha256: str
    length: int
    encoder_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return the features as JSON-ready values."""
        return {"sha256": self.sha256, "length": self.length, "encoder_sha256": self.encoder_sha256}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Features:
        """Return the features that `to_dict` stored."""
        length, encoder = _whole(value["length"]), str(value["encoder_sha256"])
        return cls(sha256=str(value["sha256"]), length=length, encoder_sha256=encoder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Commitment):
    """The secret key of a keyed watermark.

    Attributes:
        secret: 32 bytes from the system's randomness.
        pool: The pool of public images.
        probes: Number of probes that the key draws from the pool; at most all of it.
        directions: Marked directions r of each feature map.
        features: The features that the invariant map is made of; None for those of a random network.
        beacon: Round of a public randomness beacon that the key follows from; None for none.
        anchor: Reply of a timestamp authority (RFC 3161) to the commitment; None for an unanchored key. With it the key
            is another one, unless it follows from a beacon: then the reply only dates the commitment.
    """

    OF = "key"

    secret: bytes = field(repr=False)
    pool: Pool
    probes: int
    directions: int = DIRECTIONS
    features: Features | None = None

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET_BYTES:
            raise ClaimError(f"key: a secret of {len(self.secret)} bytes", f"{SECRET_BYTES} bytes")
        if not MIN_PROBES <= self.probes <= self.pool.images:
            raise ClaimError(
                f"key: {self.probes} probes of a pool of {self.pool.images} images",
                f"at least {MIN_PROBES}, at most all",
            )
        if not 1 <= self.directions <= MOST_DIRECTIONS:
            raise ClaimError(f"key: {self.directions} directions", f"1 to {MOST_DIRECTIONS}")

    @property
    def commitment(self) -> bytes:
        """Return the bytes that are published and timestamped before the key exists; they do not reveal the secret."""
        return canonical_json(
            {
                "turnmark_key": FORMAT_VERSION,
                "secret_sha256": sha256(b"turnmark key secret" + self.secret),
                "probes": self.probes,
                "directions": self.directions,
                "pool": self.pool.to_dict(),
                **self._features(),
                **self.named_round(),
            }
        )

    def randomness(self, purpose: str) -> RandomState:
        """Return the stream of random numbers that the key fixes for one purpose.

        The seed is HMAC-SHA-256 under the secret, of the commitment, a signature and the purpose. The signature is the
        beacon's, if the commitment names a round; else the one in the anchor; else empty. The stream is NumPy's legacy
        generator, the only one whose numbers are promised to stay the same (NEP 19).

        Raises:
            ClaimError: If the round that the commitment names is not signed yet.
        """
        self.require_drawn()
        stated = [b"turnmark-key-1", self.commitment, self.signature or b"", purpose.encode()]
        message = b"".join(len(part).to_bytes(8, "big") + part for part in stated)
        digest = hmac.new(self.secret, message, hashlib.sha256).digest()
        return RandomState(np.frombuffer(digest, dtype=">u4").astype(np.uint32))

    def require_drawn(self) -> None:
        """Check that the key exists.

        Raises:
            ClaimError: If the round that its commitment names is not signed yet.
        """
        if self.beacon is not None and self.waits:
            raise ClaimError(
                f"the key does not exist yet: it follows from {self.beacon}, signed at {self.beacon.time.isoformat()}",
                "after that: turnmark key anchor KEY POOL --beacon URL",
            )

    def pool_order(self) -> NDArray[np.int64]:
        """Return the indices of all images of the pool: the probes in the order in which they are used, then others."""
        return self.randomness("probes").permutation(self.pool.images).astype(np.int64)

    def probe_indices(self) -> NDArray[np.int64]:
        """Return the indices of the probes in the pool, in the order in which they are used, `(probes,)`."""
        return self.pool_order()[: self.probes]

    def _features(self) -> dict[str, Any]:
        return {} if self.features is None else {"features": self.features.to_dict()}

    def to_dict(self) -> dict[str, Any]:
        """Return the key as JSON-ready values; they are secret."""
        return {
            "format_version": FORMAT_VERSION,
            "secret": self.secret.hex(),
            "probes": self.probes,
            "directions": self.directions,
            "pool": self.pool.to_dict(),
            **self._features(),
            **self.stored_round(),
            "anchor": None if self.anchor is None else base64_text(self.anchor),
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Key:
        """Return the key that `to_dict` stored.

        Raises:
            ClaimError: If a field is missing, unknown or malformed.
            ClaimIntegrityError: If the beacon's signature is not that of the round.
        """
        try:
            if _whole(value["format_version"]) != FORMAT_VERSION:
                raise ClaimError(f"key: format version {value['format_version']!r} is unknown", "update turnmark")
            pool, anchor = value["pool"], value["anchor"]
            channels, height, width = (_whole(n) for n in pool["shape"])
            key = cls(
                secret=unhex(value["secret"]),
                pool=Pool(sha256=str(pool["sha256"]), images=_whole(pool["images"]), shape=(channels, height, width)),
                probes=_whole(value["probes"]),
                directions=_whole(value["directions"]),
                features=Features.from_dict(value["features"]) if "features" in value else None,
                beacon=BeaconRound.from_dict(value["beacon"]) if "beacon" in value else None,
                anchor=None if anchor is None else unbase64(anchor),
            )
        except (KeyError, TypeError, ValueError) as e:
            raise ClaimError("key: a field is missing or malformed", "restore the original") from e
        if key.to_dict() != value:
            raise ClaimError("key: a field is unknown or malformed", "restore the original")
        return key


def _whole(value: object) -> int:
    """Return a whole number; raise TypeError for anything else, true and 1.0 included."""
    if type(value) is not int:
        raise TypeError("not a whole number")
    return value


def new_key(
    pool: Pool,
    *,
    probes: int | None = None,
    directions: int = DIRECTIONS,
    features: Features | None = None,
    beacon: BeaconRound | None = None,
) -> Key:
    """Return a key with a fresh secret from the system's randomness, not yet anchored.

    Args:
        pool: The public images that its probes are drawn from.
        probes: Number of probes; 2,000 if not given, and at most two thirds of the pool, so that some images are left
            to extract reference surrogates with. A pool of fewer images than probes is used whole.
        directions: Marked directions of each feature map.
        features: An encoder's features of the pool; those of a random network if not given.
        beacon: Future round of a beacon that the key shall follow from; None for none.
    """
    secret = secrets.token_bytes(SECRET_BYTES)
    if probes is None:
        probes = max(MIN_PROBES, min(PROBES, 2 * pool.images // 3))
    return Key(secret=secret, pool=pool, probes=probes, directions=directions, features=features, beacon=beacon)
