"""The panel's scores by stratum."""

from __future__ import annotations

from ownership.claims.claim import Claim
from ownership.evidence.statistics import Scores, Statistic

NOT_TRAINED_ON_PRIVATE = "not trained on the private images"
"""The one stratum of dataset inference (rule 2)."""


def _scores(claim: Claim, interim: int | None, *, references: bool = False) -> Scores:
    if interim is None:
        return claim.reference_scores if references else claim.scores
    return (claim.interim_reference_scores if references else claim.interim_scores)[interim]


def strata_scores(statistic: Statistic, claim: Claim, interim: int | None = None) -> dict[str, dict[str, float]]:
    """Returns stratum -> member -> score of one statistic, for the strata with enough members.

    Args:
        statistic: which.
        claim: whose panel.
        interim: queries of a look before the last; None for the last.
    """
    scores = _scores(claim, interim).get(statistic.name, {})
    groups: dict[str, dict[str, float]] = {}
    for member in claim.members:
        if member.name not in scores:
            continue
        if not statistic.excludes_private_data:
            groups.setdefault(member.kind, {})[member.name] = scores[member.name]
        elif member.trained_on_private is False:
            groups.setdefault(NOT_TRAINED_ON_PRIVATE, {})[member.name] = scores[member.name]
    return {s: by_name for s, by_name in groups.items() if len(by_name) >= claim.plan.min_stratum}
