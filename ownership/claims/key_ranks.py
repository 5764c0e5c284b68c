"""The rank of a claim's key among keys drawn anew, for any encoder that answered the claim's probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ownership.claims.claim import Claim
from ownership.errors import ClaimError
from ownership.evidence.responses import Responses
from ownership.evidence.similarity import Array
from ownership.keyed.baselines import builtin_baselines
from ownership.keyed.maps import Targets
from ownership.keyed.pool import KeyMaterial
from ownership.keyed.test import KeyTestResult, key_test


def key_rank(claim: Claim, responses: Responses, n: int | None = None) -> KeyTestResult:
    """Return the key test of one encoder, computed once.

    The panel's members are baselines, beside the built-in ones: what they explain is subtracted, for the key and the
    decoys alike. They are independent of the key, so p stays exact.

    Args:
        claim: The claim, with a key.
        responses: Responses of the encoder.
        n: Number of public probes, from the first; None for all.

    Raises:
        ClaimError: If the claim has no key.
    """
    if claim.material is None:
        raise ClaimError("the claim has no key", "train the victim with one: turnmark train")
    baselines = tuple(claim.responses[m.name] for m in claim.members)
    count = len(claim.probes["public"]) if n is None else n
    return _rank(claim.material, responses, baselines, count, claim.plan.decoys)


@lru_cache(maxsize=128)
def _rank(
    material: KeyMaterial, responses: Responses, baselines: tuple[Responses, ...], n: int, decoys: int
) -> KeyTestResult:
    drawn = _drawn(material)
    known = (*drawn.baselines, *baselines)
    return key_test(
        responses.readings(drawn.features, n),
        drawn.frames,
        material.key.randomness("decoys"),
        baselines=[b.readings(drawn.features, n) for b in known],
        decoys=decoys,
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Drawn:
    """What a key draws for its probes."""

    features: Mapping[str, Array]  # map -> features of the probes
    frames: Mapping[str, Array]  # map -> the key's frame
    baselines: tuple[Responses, ...]  # the built-in ones


@lru_cache(maxsize=4)
def _drawn(material: KeyMaterial) -> _Drawn:
    """Return what a key draws; computed once for a claim."""
    key, probes = material.key, material.probes
    targets = Targets(key, probes)
    return _Drawn(
        features={name: targets.features(name, probes) for name in targets.names},
        frames={name: targets.frame(name) for name in targets.names},
        baselines=tuple(
            Responses(f"baseline {i}", {"public": x.astype(np.float32)})
            for i, x in enumerate(builtin_baselines(key, probes))
        ),
    )
