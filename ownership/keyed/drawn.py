"""What a key draws for its probes: features, frames and baselines, computed once and used on every encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ownership.keyed.baselines import builtin_baselines
from ownership.keyed.maps import Targets
from ownership.keyed.pool import KeyMaterial
from ownership.keyed.readings import Readings, encoder_readings, readings
from ownership.keyed.test import Frames, KeyTestResult, decoy_frames, key_test

Array = NDArray[np.float64]

MOST_KEPT = 1_600_000
"""Largest number of decoys times directions that are kept for the next encoder: 600 MB."""


@dataclass(frozen=True, eq=False, slots=True)
class Drawn:
    """What a key draws for its probes.

    Attributes:
        material: the key.
        features: name of a map -> features of the probes, `(n, D)`.
        frames: name of a map -> the key's frame, `(D, r)`.
        baselines: representations of the probes that need no training, each `(n, at most 128)`.
    """

    material: KeyMaterial
    features: Mapping[str, Array]
    frames: Mapping[str, Array]
    baselines: tuple[Array, ...]
    _decoys: dict[int, dict[str, tuple[Frames, ...]]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, material: KeyMaterial) -> Drawn:
        """Return what a key draws."""
        key, probes = material.key, material.probes
        targets = Targets(material)
        return cls(
            material=material,
            features=targets.features(),
            frames={name: targets.frame(name) for name in targets.names},
            baselines=tuple(builtin_baselines(key, probes, targets.invariant)),
        )

    def decoys(self, count: int) -> Mapping[str, Iterable[Frames]]:
        """Return `count` keys drawn anew for each map; a usual number of them is drawn once."""
        if count in self._decoys:
            return self._decoys[count]
        drawn = {
            name: decoy_frames(self.material.key.randomness(f"decoys {name}"), frame.shape[0], frame.shape[1], count)
            for name, frame in self.frames.items()
        }
        if count * self.material.key.directions > MOST_KEPT:
            return drawn
        self._decoys[count] = {name: tuple(frames) for name, frames in drawn.items()}
        return self._decoys[count]

    def test(
        self, suspect: Mapping[str, Readings], decoys: int, baselines: Sequence[Mapping[str, Readings]]
    ) -> KeyTestResult:
        """Return the key test of an encoder's readings against `decoys` keys drawn anew."""
        return key_test(suspect, self.frames, self.decoys(decoys), baselines=baselines)


def check_encoder(material: KeyMaterial, representations: Array, decoys: int = 99_999) -> KeyTestResult:
    """Return the key test of representations of the probes: what an audit finds, without a claim.

    Args:
        material: the key.
        representations: `(n, d)`, of its probes in their order.
        decoys: number of keys drawn anew.
    """
    drawn = Drawn.of(material)
    known = [readings(b, drawn.features) for b in drawn.baselines]
    return drawn.test(encoder_readings(representations, drawn.features), decoys, known)
