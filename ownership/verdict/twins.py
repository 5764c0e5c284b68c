"""What an audit measures of a claim's twins."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinsTest:
    """The test of twins: the rank of the deployed encoder among the encoders that were committed to with it.

    H0: the suspect does not depend on the pick. H1: it was made from the deployed encoder. Unit: the pick. The p-value
    is exact for every independent suspect (`ownership.keyed.twin_test`).
    """

    __test__ = False  # not a pytest class

    scores: tuple[float, ...]  # of each twin: how much of it the suspect predicts
    picked: int  # index of the deployed one
    exceeding: int  # how many others reach its score
    tried: int  # picks that the owner declares to have had made for this victim
    references: dict[str, int]  # reference surrogate -> others that reach the score of the deployed one

    @property
    def others(self) -> tuple[float, ...]:
        """The scores of the twins that were not picked."""
        return self.scores[: self.picked] + self.scores[self.picked + 1 :]

    @property
    def pvalue(self) -> float:
        """The exact p-value for one pick."""
        return (1 + self.exceeding) / len(self.scores)

    @property
    def adjusted_pvalue(self) -> float:
        """The p-value times the number of picks that the owner had made (Bonferroni)."""
        return min(1.0, self.pvalue * self.tried)

    @property
    def least_pvalue(self) -> float:
        """The smallest adjusted p-value that so many twins can give."""
        return min(1.0, self.tried / len(self.scores))

    def placing(self, exceeding: int) -> TwinsTest:
        """Return the test of another encoder, of which only the number of exceeding twins is known."""
        return replace(self, exceeding=exceeding)
