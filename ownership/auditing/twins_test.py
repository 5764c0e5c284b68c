"""The test of twins of an audit: the suspect and the reference surrogates, by the same code."""

from __future__ import annotations

from ownership.claims.claim import Claim
from ownership.claims.twins import scores_against
from ownership.evidence.responses import Responses
from ownership.keyed.twin_test import reaching
from ownership.verdict.twins import TwinsTest


def twins_test(claim: Claim, responses: Responses) -> TwinsTest | None:
    """Return the test of twins of a suspect, by all probes; None if the claim has no twins.

    Args:
        claim: The claim.
        responses: Responses of the suspect.
    """
    if claim.twins is None:
        return None
    picked, scores = claim.twins.picked, scores_against(claim.twins, responses)
    known = {m.name: scores_against(claim.twins, claim.responses[m.name]) for m in claim.references}
    return TwinsTest(
        scores=scores,
        picked=picked,
        exceeding=reaching(scores, picked),
        tried=claim.twins_tried,
        references={name: reaching(found, picked) for name, found in known.items()},
    )
