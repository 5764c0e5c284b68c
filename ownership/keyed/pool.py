"""The pool of public images: named by the commitment before the key exists, and drawn from by the key afterwards.

Which images of the pool are probes, and in which order, follows from the anchored key: the owner can neither pick nor
edit them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ownership.encoders.images import check_images, image_bytes, three_channels
from ownership.errors import ClaimError, ClaimIntegrityError, DataError
from ownership.io.canonical import canonical_json, parse_json
from ownership.io.files import read_bytes, write_bytes
from ownership.io.text import printable
from ownership.keyed.features import DIGEST_BYTES, ProbeFeatures, digests_of_features, encoder_file
from ownership.keyed.key import MIN_PROBES, Key, Pool

KEY_FILE, PROBES_FILE, FEATURES_FILE = "key.json", "probes.safetensors", "features.safetensors"


def digests_of(images: Tensor) -> bytes:
    """Return the SHA-256 of each uint8 image `(n, c, h, w)`, one after the other, 32 n bytes."""
    return b"".join(hashlib.sha256(image_bytes(image)).digest() for image in images)


def pool_of(images: Tensor) -> Pool:
    """Return the pool of these images.

    Args:
        images: `(n, c, h, w)` uint8, n >= 100.

    Raises:
        DataError: If they are too few, or no images.
    """
    check_images(images, DataError, minimum=MIN_PROBES)
    channels, height, width = images.shape[1:]
    digest = hashlib.sha256(digests_of(images)).hexdigest()
    return Pool(sha256=digest, images=len(images), shape=(channels, height, width))


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class KeyMaterial:
    """A key with what it draws: all that training, building a claim and testing need.

    Attributes:
        key: The secret key.
        probes: The probes, `(n, c, h, w)` uint8, in their order.
        digests: SHA-256 of each image of the pool, 32 bytes each.
        features: The probes' features, where they are an encoder's.
    """

    key: Key
    probes: Tensor
    digests: bytes
    features: ProbeFeatures | None = None

    @classmethod
    def draw(
        cls, key: Key, images: Tensor, features: Tensor | None = None, encoder: Path | str | None = None
    ) -> KeyMaterial:
        """Return a key with the probes that it draws from the images of its pool, given in their order.

        Args:
            key: The key.
            images: `(n, c, h, w)` uint8, the images of its pool.
            features: `(n, 2, d)` float16, the features that it was committed to, if any.
            encoder: File of the encoder that they come from.

        Raises:
            ClaimError: If these are other images than the key was committed to.
            ClaimIntegrityError: If these are other features.
        """
        drawn = None
        if features is not None:
            rows = features[key.probe_indices()].contiguous()
            file = None if encoder is None else Path(encoder)
            drawn = ProbeFeatures(rows=rows, digests=digests_of_features(features), encoder=file)
        probes, digests = drawn_probes(key, images), digests_of(in_channels(images, key.pool.shape[0]))
        material = cls(key=key, probes=probes, digests=digests, features=drawn)
        material.check()
        return material

    def check(self) -> None:
        """Check that the probes are what the key draws from its pool.

        Raises:
            ClaimIntegrityError: If the digests are not those that the key was committed to, or a probe is another
                image.
        """
        pool = self.key.pool
        whole = len(self.digests) == DIGEST_BYTES * pool.images
        if not whole or hashlib.sha256(self.digests).hexdigest() != pool.sha256:
            raise ClaimIntegrityError("key: the pool is not the one that it was committed to", "it was changed")
        stated = [self.digests[DIGEST_BYTES * i : DIGEST_BYTES * (i + 1)] for i in self.key.probe_indices()]
        if b"".join(stated) != digests_of(self.probes):
            raise ClaimIntegrityError(
                "the public probes are not those that the key draws from its pool: they were picked or edited"
            )
        if (self.key.features is None) != (self.features is None):
            raise ClaimIntegrityError("key: the features that it was committed to are missing", "restore the original")
        if self.key.features is not None and self.features is not None:
            self.features.check(self.key)

    def save(self, folder: Path | str) -> None:
        """Write the key (secret), its probes and their features into a folder, mode 0600."""
        folder = Path(folder)
        pool = torch.frombuffer(bytearray(self.digests), dtype=torch.uint8)
        if self.features is not None:
            write_bytes(folder / FEATURES_FILE, self.features.to_bytes(), secret=True)
        write_bytes(folder / PROBES_FILE, save({"probes": self.probes, "pool_digests": pool}), secret=True)
        write_bytes(folder / KEY_FILE, canonical_json(self.key.to_dict()), secret=True)

    @classmethod
    def load(cls, folder: Path | str) -> KeyMaterial:
        """Return what `save` wrote, checked.

        Raises:
            ClaimError: If a file is missing or damaged.
            ClaimIntegrityError: If the probes or their features are not what the key draws.
        """
        folder = Path(folder)
        key = load_key(folder)
        key.require_drawn()
        name = PROBES_FILE
        if not (folder / name).is_file():
            raise ClaimError(f"the key in {printable(folder, 300)} is not whole: {name} is missing", "restore it")
        try:
            tensors = load(read_bytes(folder / name, ClaimError, "probes"))
            probes, pool = tensors["probes"], tensors["pool_digests"]
            check_images(probes, ClaimError)
            if pool.dtype != torch.uint8:
                raise ValueError("digests are bytes")
            features, name = None, FEATURES_FILE
            if key.features is not None:
                data = read_bytes(folder / name, ClaimError, "features")
                features = ProbeFeatures.from_bytes(data, encoder=encoder_file(folder))
        except (SafetensorError, KeyError, ValueError) as e:
            raise ClaimError(f"{printable(folder / name, 300)} is damaged", "restore the original") from e
        material = cls(key=key, probes=probes, digests=pool.numpy().tobytes(), features=features)
        material.check()
        return material


def load_key(folder: Path | str) -> Key:
    """Return the key of a folder, which may still wait for a beacon's round; what it draws is not read.

    Raises:
        ClaimError: If it is missing or damaged.
        ClaimIntegrityError: If the beacon's signature is not that of the round.
    """
    path = Path(folder) / KEY_FILE
    if not path.is_file():
        raise ClaimError(f"{printable(folder, 300)} holds no {KEY_FILE}", "give a folder of turnmark key new")
    return Key.from_dict(parse_json(read_bytes(path, ClaimError, "key"), ClaimError, KEY_FILE))


def drawn_probes(key: Key, images: Tensor) -> Tensor:
    """Return the probes that a key draws from the images of its pool, given in their order, `(n, c, h, w)`.

    Raises:
        ClaimError: If these are other images than the key was committed to.
    """
    check_pool(key, images)
    return in_channels(images, key.pool.shape[0])[key.probe_indices()].contiguous()


def check_pool(key: Key, images: Tensor) -> None:
    """Raise ClaimError unless these are the images of a key's pool, in their order, `(n, c, h, w)`."""
    if pool_of(in_channels(images, key.pool.shape[0])) != key.pool:
        raise ClaimError(
            "these public images are not the ones that the key was made for",
            f"give all {key.pool.images} images of turnmark key new, in the same order and size",
        )


def in_channels(images: Tensor, channels: int) -> Tensor:
    """Return gray images in one channel or in three equal ones, as wanted; other images as they are."""
    if channels == 3:
        return three_channels(images)
    if images.shape[1] == 1:
        return images
    return images[:, :1] if torch.equal(images, images[:, :1].expand_as(images)) else images
