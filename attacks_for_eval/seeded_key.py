"""Keys that follow from a name, so that demos, evaluations and benchmarks repeat themselves. They are no secrets."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import Tensor

from ownership.keyed.features import PoolFeatures
from ownership.keyed.key import Key
from ownership.keyed.pool import KeyMaterial, pool_of


def seeded_key(
    name: str,
    pool: Tensor,
    *,
    probes: int | None = None,
    features: PoolFeatures | None = None,
    encoder: Path | None = None,
) -> KeyMaterial:
    """Return the unanchored key of a name with its probes.

    Args:
        name: what its secret follows from.
        pool: `(n, c, h, w)` uint8, n >= 100, the images of its pool.
        probes: number of probes; all of the pool if not given.
        features: an encoder's features of the pool; those of a random network if not given.
        encoder: file of that encoder, for training.

    Raises:
        DataError: if the images are too few, or no images.
        ClaimError: if these are more probes than images, or fewer than 100.
    """
    secret = hashlib.sha256(name.encode()).digest()
    named, rows = (None, None) if features is None else (features.named, features.rows)
    key = Key(secret=secret, pool=pool_of(pool), probes=len(pool) if probes is None else probes, features=named)
    return KeyMaterial.draw(key, pool, rows, encoder)
