"""The key test of an audit: the suspect, the victim and the reference surrogates, by the same code."""

from __future__ import annotations

from ownership.claims.claim import Claim
from ownership.claims.key_ranks import key_rank
from ownership.evidence.responses import Responses
from ownership.verdict.results import KeyTest


def key_test(claim: Claim, responses: Responses, n: int | None = None) -> KeyTest | None:
    """Return the key test of a suspect; None if the claim has no key.

    Args:
        claim: The claim.
        responses: Responses of the suspect.
        n: Number of public probes of an interim analysis; None for all.
    """
    if claim.material is None:
        return None
    suspect = key_rank(claim, responses, n)
    return KeyTest(
        maps=suspect.maps,
        statistic=suspect.statistic,
        decoys=suspect.decoys,
        exceeding=suspect.exceeding,
        histogram=suspect.histogram,
        edges=suspect.edges,
        keys_tried=claim.keys_tried,
        victim=key_rank(claim, claim.responses[claim.victim.name], n).exceeding,
        references={m.name: key_rank(claim, claim.responses[m.name], n).exceeding for m in claim.references},
    )
