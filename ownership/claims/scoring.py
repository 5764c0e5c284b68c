"""The scores of a claim's panel and of its reference surrogates, computed from their representations.

A claim stores no score: a stored number could be edited, a computed one follows from representations that can be
checked against the encoders' files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ownership.evidence.responses import Responses, ScoringContext
from ownership.evidence.statistics import Scores, score_members, score_others


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelScores:
    """Scores at the final analysis and at each interim analysis.

    Attributes:
        members: Of the panel, each member against the others.
        references: Of the reference surrogates against the panel.
        interim_members: Queries of an interim analysis -> scores of the panel on its probes, by the primary tests.
        interim_references: The same of the reference surrogates.
    """

    members: Scores
    references: Scores
    interim_members: Mapping[int, Scores]
    interim_references: Mapping[int, Scores]


def score_panel(
    context: ScoringContext, references: Sequence[Responses], sizes: Mapping[int, dict[str, int]]
) -> PanelScores:
    """Return the scores of a panel and of reference surrogates.

    Args:
        context: Victim, panel and secrets.
        references: Responses of the reference surrogates.
        sizes: Queries of an interim analysis -> number of probes of each set.
    """
    primary = context.plan.primary
    return PanelScores(
        members=score_members(context),
        references=score_others(references, context),
        interim_members={n: score_members(context.first(of), primary) for n, of in sizes.items()},
        interim_references={
            n: score_others([r.first(of) for r in references], context.first(of), primary) for n, of in sizes.items()
        },
    )
