"""The pool of public images: named by the commitment before the key exists, and drawn from by the key afterwards.

Nobody picks or edits probes: which images of the pool they are, and in which order, follows from the anchored key.
"""

from __future__ import annotations

import hashlib

from torch import Tensor

from ownership.encoders.images import check_images, image_bytes
from ownership.errors import ClaimError, ClaimIntegrityError, DataError
from ownership.keyed.key import Key, Pool
from ownership.keyed.maps import MIN_PROBES

DIGEST_BYTES = 32


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


def draw_probes(key: Key, images: Tensor, n: int) -> Tensor:
    """Return the probes that a key draws from its pool, `(min(n, images), c, h, w)` uint8.

    Args:
        key: The key.
        images: The images of its pool, in their order.
        n: Number of probes.

    Raises:
        ClaimError: If these are other images than the key was committed to.
    """
    if pool_of(images) != key.pool:
        raise ClaimError(
            "these public images are not the ones that the key was made for", "give the images of turnmark key new"
        )
    return images[key.probe_indices(n)]


def check_drawn(key: Key, probes: Tensor, digests: bytes) -> None:
    """Check that probes are what the key draws from its pool.

    Args:
        key: The key.
        probes: `(n, c, h, w)` uint8.
        digests: SHA-256 of each image of the pool (`digests_of`).

    Raises:
        ClaimIntegrityError: If the digests are not those that the key was committed to, or a probe is another image.
    """
    whole = len(digests) == DIGEST_BYTES * key.pool.images
    if not whole or hashlib.sha256(digests).hexdigest() != key.pool.sha256:
        raise ClaimIntegrityError("claim: the pool is not the one that the key was committed to", "it was changed")
    stated = [digests[DIGEST_BYTES * i : DIGEST_BYTES * (i + 1)] for i in key.probe_indices(len(probes))]
    if b"".join(stated) != digests_of(probes):
        raise ClaimIntegrityError(
            "claim: the public probes are not those that the key draws from its pool: they were picked or edited"
        )
