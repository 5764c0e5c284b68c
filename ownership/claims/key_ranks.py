"""The rank of a claim's key among keys drawn anew, for any encoder that answered the claim's probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ownership.claims.claim import Claim
from ownership.errors import ClaimError
from ownership.evidence.responses import Responses
from ownership.io.progress import Progress, silent
from ownership.keyed.drawn import Drawn
from ownership.keyed.pool import KeyMaterial
from ownership.keyed.readings import Readings, encoder_readings, readings
from ownership.keyed.test import KeyTestResult
from ownership.stats import binomial_interval

POWER_SUBSETS = 10
"""Random subsets of the probes that `key_power` tries."""


def key_rank(claim: Claim, responses: Responses, n: int | None = None) -> KeyTestResult:
    """Return the key test of one encoder, computed once.

    Only the built-in baselines are subtracted. Panel members are not: the owner chooses them and knows the key, and a
    member that is the suspect less its marked directions would leave of the suspect nothing but these.

    Args:
        claim: The claim, with a key.
        responses: Responses of the encoder.
        n: Number of public probes, from the first; None for all.

    Raises:
        ClaimError: If the claim has no key.
    """
    if claim.material is None:
        raise ClaimError("the claim has no key", "train the victim with one: turnmark train")
    count = len(claim.probes["public"]) if n is None else n
    return _rank(claim.material, responses, count, claim.plan.decoys)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPower:
    """How often the key test finds a reference surrogate with some of the probes.

    Attributes:
        reference: Name of the reference surrogate.
        probes: Number of probes.
        subsets: Random subsets of that size that were tried.
        found: Subsets with which the key test rejects at its final share of alpha.
    """

    reference: str
    probes: int
    subsets: int
    found: int

    @property
    def power(self) -> float:
        """The share of the subsets."""
        return self.found / self.subsets

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the power (Clopper and Pearson); subsets overlap, so it is too narrow near all probes."""
        return binomial_interval(self.found, self.subsets)


def key_power(claim: Claim, counts: Sequence[int], progress: Progress = silent) -> list[KeyPower]:
    """Return the power of the key test against each reference surrogate, by number of probes.

    Args:
        claim: The claim, with a key; without reference surrogates the list is empty.
        counts: Numbers of probes, each at most those of the claim.
        progress: Called after every number.
    """
    if claim.material is None:
        raise ClaimError("the claim has no key", "train the victim with one: turnmark train")
    drawn = _drawn(claim.material)
    level, whole = claim.plan.key_alpha * claim.plan.final_share / claim.keys_tried, len(claim.probes["public"])
    out = []
    for i, n in enumerate(counts):
        subsets = 1 if n >= whole else POWER_SUBSETS
        found = dict.fromkeys((m.name for m in claim.references), 0)
        for k in range(subsets):
            rows = np.sort(np.random.default_rng([claim.plan.seed, n, k]).permutation(whole)[:n])
            features = {name: y[rows] for name, y in drawn.features.items()}
            known = [readings(b[rows], features) for b in drawn.baselines]
            for name in found:
                of = encoder_readings(claim.responses[name].get("public")[rows], features)
                found[name] += drawn.test(of, claim.plan.decoys, known).pvalue <= level
        out += [KeyPower(reference=r, probes=n, subsets=subsets, found=count) for r, count in found.items()]
        progress("computing power", i + 1, len(counts))
    return out


@lru_cache(maxsize=128)
def _rank(material: KeyMaterial, responses: Responses, n: int, decoys: int) -> KeyTestResult:
    return _drawn(material).test(responses.readings(_drawn(material).features, n), decoys, _baselines(material, n))


@lru_cache(maxsize=4)
def _drawn(material: KeyMaterial) -> Drawn:
    """Return what a key draws, computed once for a claim."""
    return Drawn.of(material)


@lru_cache(maxsize=16)
def _baselines(material: KeyMaterial, n: int) -> list[dict[str, Readings]]:
    """Return the readings of the baselines on the first n probes, computed once."""
    drawn = _drawn(material)
    return [readings(b[:n], {name: rows[:n] for name, rows in drawn.features.items()}) for b in drawn.baselines]
