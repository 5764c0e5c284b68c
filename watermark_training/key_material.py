"""The key of a keyed watermark where none is given: new, its pool held out of the training images."""

from __future__ import annotations

import torch
from torch import Tensor

from ownership.errors import TrainingError
from ownership.keyed.features import DIGEST_BYTES
from ownership.keyed.key import MIN_PROBES, new_key
from ownership.keyed.pool import KeyMaterial, digests_of, in_channels, pool_of
from watermark_training.distributed import from_first_process

MOST_HELD_OUT = 4000
"""Largest number of training images that are held out."""


def new_key_material(images: Tensor) -> KeyMaterial:
    """Return a new, unanchored key whose pool is these images; of several processes all get the same.

    A key that is anchored before training excludes that it was chosen afterwards: `turnmark key new --timestamp`.

    Args:
        images: `(n, c, h, w)` uint8, n >= 100, that the encoder is not trained on.

    Raises:
        DataError: if they are too few, or no images.
    """
    return KeyMaterial.draw(from_first_process(new_key(pool_of(images))), images)


def held_out(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split the indices of training images: those that are trained on, and those held out as the pool of a key.

    A tenth is held out, at least 200 (a quarter of fewer than 800), at most 4,000.

    Returns:
        Two sorted tensors of indices.

    Raises:
        TrainingError: if that gives fewer images than a key needs.
    """
    size = min(MOST_HELD_OUT, max(count // 10, min(200, count // 4)))
    if size < MIN_PROBES:
        raise TrainingError(
            f"{count} images are too few to hold {MIN_PROBES} out for the probes of a key",
            f"{4 * MIN_PROBES} images, or a key of other images (turnmark key new), or another watermark",
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[size:].sort().values, order[:size].sort().values


def refuse_pool_images(images: Tensor, material: KeyMaterial) -> None:
    """Check that an encoder is not trained on the images that its key draws the probes from.

    Data sets have some duplicates: as many as a tenth of the pool are allowed.

    Args:
        images: `(n, c, h, w)` uint8, the training images.
        material: the key.

    Raises:
        TrainingError: if more are in the pool.
    """
    size = material.key.pool.images
    inside = len(images) - len(outside_pool(images, material))
    if 10 * inside > size:
        raise TrainingError(
            f"{inside:,} of the training images are in the key's pool of {size:,}",
            "train on other images than those of turnmark key new",
        )


def outside_pool(images: Tensor, material: KeyMaterial) -> Tensor:
    """Return the indices of the images that are not in the pool of a key, `(k,)`.

    Of the images that a training held some out of, these are the ones that it was trained on.

    Args:
        images: `(n, c, h, w)` uint8.
        material: the key.
    """
    pool = {material.digests[i : i + DIGEST_BYTES] for i in range(0, len(material.digests), DIGEST_BYTES)}
    digests = digests_of(in_channels(images, material.key.pool.shape[0]))
    kept = [i for i in range(len(images)) if digests[DIGEST_BYTES * i : DIGEST_BYTES * (i + 1)] not in pool]
    return torch.tensor(kept, dtype=torch.int64)
