"""The panel's scores by stratum."""

from __future__ import annotations

from ownership.claims.claim import Claim
from ownership.evidence.statistics import Scores, Statistic

OUTSIDERS = "not trained on the private images"
"""The one stratum of dataset inference (rule 2)."""


def _scores(claim: Claim, look: int | None, *, references: bool = False) -> Scores:
    if look is None:
        return claim.reference_scores if references else claim.scores
    return (claim.look_reference_scores if references else claim.look_scores)[look]


def strata_scores(statistic: Statistic, claim: Claim, look: int | None = None) -> dict[str, dict[str, float]]:
    """Returns stratum -> member -> score of one statistic, for the strata with enough members.

    Args:
        statistic: which.
        claim: whose panel.
        look: queries of a look before the last; None for the last.
    """
    scores = _scores(claim, look).get(statistic.name, {})
    groups: dict[str, dict[str, float]] = {}
    for member in claim.members:
        if member.name not in scores:
            continue
        if not statistic.needs_outsiders:
            groups.setdefault(member.kind, {})[member.name] = scores[member.name]
        elif member.trained_on_private is False:
            groups.setdefault(OUTSIDERS, {})[member.name] = scores[member.name]
    return {s: by_name for s, by_name in groups.items() if len(by_name) >= claim.plan.min_stratum}
