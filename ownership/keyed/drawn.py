"""What a key draws for its probes: features, frames and baselines, computed once and used on every encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ownership.keyed.baselines import builtin_baselines
from ownership.keyed.maps import Targets
from ownership.keyed.pool import KeyMaterial
from ownership.keyed.test import KeyTestResult, key_test, readings

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class Drawn:
    """What a key draws for its probes.

    Attributes:
        features: name of a map -> features of the probes, `(n, D)`.
        frames: name of a map -> the key's frame, `(D, r)`.
        baselines: representations of the probes that need no training, each `(n, at most 128)`.
    """

    features: Mapping[str, Array]
    frames: Mapping[str, Array]
    baselines: tuple[Array, ...]

    @classmethod
    def of(cls, material: KeyMaterial) -> Drawn:
        """Return what a key draws."""
        key, probes = material.key, material.probes
        targets = Targets(key, probes)
        return cls(
            features={name: targets.features(name, probes) for name in targets.names},
            frames={name: targets.frame(name) for name in targets.names},
            baselines=tuple(builtin_baselines(key, probes)),
        )


def check_encoder(material: KeyMaterial, representations: Array, decoys: int = 99_999) -> KeyTestResult:
    """Return the key test of representations of the probes: what an audit finds, without a claim.

    Args:
        material: the key.
        representations: `(n, d)`, of its probes in their order.
        decoys: number of keys drawn anew.
    """
    drawn = Drawn.of(material)
    return key_test(
        readings(representations, drawn.features),
        drawn.frames,
        material.key.randomness("check of the owner"),
        baselines=[readings(b, drawn.features) for b in drawn.baselines],
        decoys=decoys,
    )
