"""Transforms of a surrogate's representations, for the price of hiding it from the key test.

Each maps pixels and representations of some images to other representations. Parameters are drawn from a fixed seed;
means and scales are those of the attacker's own images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Known:
    """What the attacker has of some images.

    Attributes:
        pixels: `(n, p)` in [0, 1].
        surrogate: representations by the surrogate, `(n, d)`, standardized on the attacker's images.
        own: representations by an encoder that the attacker trained without the victim, `(n, d)`, likewise.
    """

    pixels: Array
    surrogate: Array
    own: Array


Transform = Callable[[Known], Array]
FACTOR = 10
"""How many times as large as the surrogate's representations appended columns are."""


def transforms(of: Known, seed: int = 0) -> Mapping[str, Transform]:
    """Return every transform by name.

    Args:
        of: the attacker's own images, on which spectra and ranks are taken.
        seed: of random maps.
    """
    rng = np.random.default_rng(seed)
    d, p = of.surrogate.shape[1], of.pixels.shape[1]
    turned = np.linalg.qr(rng.standard_normal((d, d)))[0]
    wide, signs = rng.standard_normal((d, 256)), rng.standard_normal((d, 512))
    few, many = rng.standard_normal((p, 64)) / np.sqrt(p), rng.standard_normal((p, 232)) / np.sqrt(p)
    _, s, vt = np.linalg.svd(of.surrogate, full_matrices=False)
    kept = s > 1e-4 * s[0]
    s, vt = s[kept], vt[kept]
    ordered = np.sort(of.surrogate, axis=0)

    def beside(*columns: Callable[[Known], Array]) -> Transform:
        return lambda x: np.concatenate([x.surrogate, *(FACTOR * c(x) for c in columns)], axis=1)

    def own(x: Known) -> Array:
        return x.own

    def pixels(matrix: Array) -> Callable[[Known], Array]:
        return lambda x: x.pixels @ matrix

    def hashed(count: int) -> Callable[[Known], Array]:
        matrix = np.random.default_rng(seed + 1).standard_normal((p, count)) * 1e4
        return lambda x: np.modf(np.sin(np.floor(x.pixels @ matrix)) * 43758.5)[0]

    return {
        "none": lambda x: x.surrogate,
        "64 projections of the pixels": beside(pixels(few)),
        "another encoder": beside(own),
        "40 hash columns": beside(hashed(40)),
        "200 hash columns": beside(hashed(200)),
        "512 constant columns": lambda x: np.c_[x.surrogate, np.ones((len(x.surrogate), 512))],
        "spectrum reversed": lambda x: x.surrogate @ vt.T / s * s[::-1],
        "whitened": lambda x: x.surrogate @ vt.T / s,
        "tanh(3 z) of a rotation": lambda x: np.tanh(3 * x.surrogate @ turned),
        "ReLU of 256 projections": lambda x: np.maximum(x.surrogate @ wide, 0),
        "signs of 512 projections": lambda x: np.sign(x.surrogate @ signs),
        "times exp(2 hash)": lambda x: x.surrogate * np.exp(2 * hashed(1)(x)),
        "ranks": lambda x: np.stack([np.searchsorted(o, c) for o, c in zip(ordered.T, x.surrogate.T, strict=True)], 1),
        "mean with another encoder": lambda x: x.surrogate + x.own,
        "another encoder and pixels": beside(own, pixels(few)),
        "another encoder and 100 hash columns": beside(own, hashed(100)),
        "ReLU of 256 projections of another encoder": beside(lambda x: np.maximum(x.own @ wide, 0)),
        "another encoder and 232 projections of the pixels": beside(own, pixels(many)),
        "another encoder, pixels and 100 hash columns": beside(own, pixels(few), hashed(100)),
        "exp(2 z)": lambda x: np.exp(2 * x.surrogate),
        "sin(3 z) of a rotation": lambda x: np.sin(3 * x.surrogate @ turned),
        "600 hash columns": beside(hashed(600)),
    }
