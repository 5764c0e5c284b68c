"""The scores of the panel by stratum, and the thresholds that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ownership.claims.claim import Claim
from ownership.evidence.statistics import SCALES, STATISTICS, Scores, Statistic
from ownership.stats import CaseControlResult, case_control_test, composite_threshold

NOT_TRAINED_ON_PRIVATE = "not trained on the private images"
"""The only stratum of dataset inference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlScores:
    """The scores of one statistic for the panel, by stratum.

    Attributes:
        statistic: The statistic.
        strata: Stratum -> member -> score, on the statistic's natural scale.
    """

    statistic: Statistic
    strata: Mapping[str, Mapping[str, float]]

    def without(self, member: str) -> ControlScores:
        """Return the scores of the panel without one member."""
        return replace(
            self,
            strata={s: {n: v for n, v in by_name.items() if n != member} for s, by_name in self.strata.items()},
        )

    @property
    def scores(self) -> dict[str, float]:
        """Return the score of every member of these strata, by name."""
        return {name: score for by_name in self.strata.values() for name, score in by_name.items()}

    def tests(self, score: float) -> dict[str, CaseControlResult]:
        """Return the test of a score against each stratum, made on the statistic's scale.

        Raises:
            ClaimError: If a stratum cannot be tested against because all its members score alike.
        """
        forward, _ = SCALES[self.statistic.scale]
        return {
            stratum: case_control_test(forward(score), scores, self.statistic.alternative, min_sd=self.statistic.min_sd)
            for stratum, scores in self._scaled().items()
        }

    def threshold(self, alpha: float) -> float:
        """Return the score, on the natural scale, beyond which p < alpha against every stratum and every member."""
        _, back = SCALES[self.statistic.scale]
        return back(self._scaled_threshold(alpha))

    def exceeds(self, score: float, alpha: float) -> bool:
        """Return whether a score lies beyond the threshold, in the direction of the alternative."""
        forward, _ = SCALES[self.statistic.scale]
        sign = 1 if self.statistic.alternative == "greater" else -1
        return sign * forward(score) > sign * self._scaled_threshold(alpha)

    def _scaled_threshold(self, alpha: float) -> float:
        least = self.statistic.min_sd
        return composite_threshold(self._scaled().values(), alpha, self.statistic.alternative, min_sd=least)

    def _scaled(self) -> dict[str, list[float]]:
        """Return the scores on the test's scale, in the order of names, so that no sum depends on a file's order."""
        forward, _ = SCALES[self.statistic.scale]
        return {s: [forward(self.strata[s][n]) for n in sorted(self.strata[s])] for s in sorted(self.strata)}


def control_scores(claim: Claim, name: str, interim: int | None = None) -> ControlScores:
    """Return the panel's scores of one statistic, for the strata with enough members.

    Args:
        claim: The claim.
        name: Name of the statistic.
        interim: Queries of an interim analysis; None for the final analysis.
    """
    return ControlScores(statistic=STATISTICS[name], strata=strata_scores(STATISTICS[name], claim, interim))


def scores_at(claim: Claim, interim: int | None, *, references: bool = False) -> Scores:
    """Return the scores of the panel, or of the references, in one analysis.

    Args:
        claim: The claim.
        interim: Queries of an interim analysis; None for the final analysis.
        references: Whether to return the scores of the references.
    """
    if interim is None:
        return claim.panel_scores.references if references else claim.panel_scores.members
    return (claim.panel_scores.interim_references if references else claim.panel_scores.interim_members)[interim]


def strata_scores(statistic: Statistic, claim: Claim, interim: int | None = None) -> dict[str, dict[str, float]]:
    """Return stratum -> member -> score of one statistic, for the strata with enough members.

    Args:
        statistic: The statistic.
        claim: The claim.
        interim: Queries of an interim analysis; None for the final analysis.
    """
    scores = scores_at(claim, interim).get(statistic.name, {})
    groups: dict[str, dict[str, float]] = {}
    for member in claim.members:
        if member.name not in scores:
            continue
        if not statistic.excludes_private_data:
            groups.setdefault(member.kind, {})[member.name] = scores[member.name]
        elif member.trained_on_private is False:
            groups.setdefault(NOT_TRAINED_ON_PRIVATE, {})[member.name] = scores[member.name]
    return {s: by_name for s, by_name in groups.items() if len(by_name) >= claim.plan.min_stratum}


def leave_one_out_rejections(claim: Claim) -> list[str]:
    """Return the members for which a primary test rejects when tested against the panel without them.

    The result is descriptive: members are no test sample, because they made the thresholds. A rejected member shows
    that its stratum mixes several kinds of encoder.
    """
    level = claim.plan.final_alpha / len(claim.plan.primary)
    rejected = set()
    for name in claim.plan.primary:
        controls = control_scores(claim, name)
        rejected |= {m for m, score in controls.scores.items() if controls.without(m).exceeds(score, level)}
    return sorted(rejected)
