"""The rank of a claim's key among keys drawn anew, for any encoder that answered the claim's probes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ownership.claims.claim import Claim
from ownership.errors import ClaimError
from ownership.evidence.responses import Responses
from ownership.keyed.drawn import Drawn
from ownership.keyed.pool import KeyMaterial
from ownership.keyed.test import KeyTestResult


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
    drawn, builtin = _drawn(material)
    known = (*builtin, *baselines)
    return drawn.test(responses.readings(drawn.features, n), decoys, [b.readings(drawn.features, n) for b in known])


@lru_cache(maxsize=4)
def _drawn(material: KeyMaterial) -> tuple[Drawn, tuple[Responses, ...]]:
    """Return what a key draws, and its baselines as responses, which keep their readings; computed once for a claim."""
    drawn = Drawn.of(material)
    baselines = enumerate(drawn.baselines)
    return drawn, tuple(Responses(f"baseline {i}", {"public": x.astype(np.float32)}) for i, x in baselines)
