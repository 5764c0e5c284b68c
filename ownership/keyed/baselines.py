"""Built-in baselines: what can be read from the probes without any training.

Any encoder predicts some functions of an image better than others, whatever the key. Most of this is known from the
images alone: their pixels, and random networks of them. The key test subtracts it, for the key and the decoys alike,
which leaves the p-value exact and makes it smaller for copies. A panel's encoders have to know more of the victim than
baselines that are the same for every claim.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import Tensor

from ownership.keyed.key import Key
from ownership.keyed.maps import GRID, SIDE, InvariantMap, RandomNetwork, on_probes

Array = NDArray[np.float64]

DIRECTIONS = 128
"""Leading principal components that are kept of each baseline."""
POOLING = (GRID, GRID, 1, 2 * GRID)
"""One random network for each: cells a side in which its features are pooled."""


def builtin_baselines(key: Key, probes: Tensor, invariant: InvariantMap) -> list[Array]:
    """Return representations of the probes that need no training, each `(n, at most 128)`.

    Args:
        key: draws the random networks; they are independent of its frames.
        probes: `(n, c, h, w)` uint8.
        invariant: the key's map. What it is made of shows how much variance its features have in an encoder by nature.
    """
    found = [_pixels(probes), invariant.rows[:, 0], invariant.rows[:, 1]]
    found += [_network(probes, key.randomness(f"baseline {i}"), cells) for i, cells in enumerate(POOLING)]
    return [_leading(x) for x in found]


def baselines_without_key(probes: Tensor) -> dict[str, Array]:
    """Return representations of the probes that need no training and no key, by name, each `(n, d)`.

    They are pixels and random networks of fixed seeds, so that an owner cannot choose them.

    Args:
        probes: `(n, c, h, w)` uint8.
    """
    networks = {f"random_network_{i}": _network(probes, RandomState(i), cells) for i, cells in enumerate(POOLING)}
    return {"pixels": _pixels(probes)} | networks


def _network(probes: Tensor, random: RandomState, cells: int) -> Array:
    network = RandomNetwork(random)
    return on_probes(probes, lambda x: F.adaptive_avg_pool2d(network(x), cells).flatten(1))


def _pixels(probes: Tensor) -> Array:
    side = min(SIDE // 2, *probes.shape[-2:])
    return on_probes(probes, lambda x: F.adaptive_avg_pool2d(x, side).flatten(1))


def _leading(x: Array) -> Array:
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    out: Array = (u * s)[:, :DIRECTIONS]
    return out
