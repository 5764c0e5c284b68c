"""What an audit is made of: one test of the suspect, a look, an auditor's own encoder, the mark read again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from ownership.evidence.statistics import SCALES, STATISTICS
from ownership.plan import SMALL_OR_PUBLIC_STRATA
from ownership.stats import (
    Alternative,
    CaseControlResult,
    ImageLevelTest,
    case_control_test,
    composite_threshold,
    holm,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One statistic on the suspect, tested against every stratum of the panel; the largest p counts."""

    __test__ = False  # not a pytest class

    name: str
    family: str  # watermark, distance, inference
    title: str
    null_hypothesis: str
    alternative: Alternative
    scale: str  # the scale the t-tests are made on: fisher_z, logit, log, identity
    value: float  # of the suspect, on its natural scale
    missing_strata: tuple[str, ...]  # required strata without enough members
    rank_pvalue: float  # exact, symmetric, largest over strata
    members: dict[str, dict[str, float]]  # stratum with enough members -> member -> value
    references: dict[str, float]  # reference surrogate -> value
    image_level: ImageLevelTest | None  # the paper's test, for comparison

    @property
    def strata(self) -> dict[str, CaseControlResult]:
        """The t-test against each stratum, computed from the values on the test's scale.

        Raises:
            ClaimError: if one cannot be computed.
        """
        forward, _ = SCALES[self.scale]
        return {
            stratum: _test(forward(self.value), scores, self.alternative, self._least_sd)
            for stratum, scores in self._scaled().items()
        }

    @property
    def _least_sd(self) -> float:
        return STATISTICS[self.name].least_sd if self.name in STATISTICS else 0.0

    def _scaled(self) -> dict[str, tuple[float, ...]]:
        """The members' values on the test's scale, in the order of names: no sum depends on a file's order."""
        forward, _ = SCALES[self.scale]
        return {s: tuple(forward(self.members[s][n]) for n in sorted(self.members[s])) for s in sorted(self.members)}

    @property
    def decisive_stratum(self) -> str:
        """The stratum with the largest p-value."""
        tests = self.strata
        return max(tests, key=lambda s: tests[s].pvalue)

    @property
    def decisive(self) -> CaseControlResult:
        """The test against the stratum with the largest p-value."""
        return self.strata[self.decisive_stratum]

    @property
    def pvalue(self) -> float:
        """Largest p-value over the strata (composite null)."""
        return self.decisive.pvalue

    @property
    def exceeds_all_controls(self) -> bool:
        """Whether the suspect lies beyond every panel member, in the direction of the alternative."""
        values = [v for by_name in self.members.values() for v in by_name.values()]
        return all(self.value > v if self.alternative == "greater" else self.value < v for v in values)

    @property
    def relative_similarity(self) -> float | None:
        """How far the suspect comes from small and public encoders (0) to the closest reference surrogate (1).

        On the test's scale; 0 is the mean of the stratum, small or public, that lies closer to the references. None
        where there is neither, or no reference lies beyond them.
        """
        forward, _ = SCALES[self.scale]
        sign = 1 if self.alternative == "greater" else -1
        strata = [scores for stratum, scores in self._scaled().items() if stratum in SMALL_OR_PUBLIC_STRATA]
        if not strata:
            return None
        start = max(sign * sum(scores) / len(scores) for scores in strata)
        end = max((sign * forward(v) for v in self.references.values()), default=start)
        return (sign * forward(self.value) - start) / (end - start) if end > start else None

    def threshold(self, alpha: float) -> float:
        """Returns the value, on the natural scale, beyond which p < alpha against every stratum and every member."""
        _, back = SCALES[self.scale]
        return back(composite_threshold(self._scaled().values(), alpha, self.alternative, least_sd=self._least_sd))

    def reaches(self, value: float, alpha: float) -> bool:
        """Returns whether `value` lies beyond the threshold."""
        limit = self.threshold(alpha)
        return value > limit if self.alternative == "greater" else value < limit


@lru_cache(maxsize=256)
def _test(value: float, members: tuple[float, ...], alternative: Alternative, least_sd: float) -> CaseControlResult:
    return case_control_test(value, members, alternative, least_sd=least_sd)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorCheck:
    """The mark, read by the claim's predictor and by linear ones that the audit fits to the victim's own answers."""

    claimed: float  # success rate of the claim's predictor on the suspect
    claimed_victim: float  # and on the victim
    refitted: float  # of a refitted predictor for the claim's key, on the suspect
    control_rates: tuple[float, ...]  # of refitted predictors for keys drawn after the claim, on the suspect
    refitted_victim: float  # their mean, the claim's key included, on the victim
    n: int  # probes that the refitted ones were read on

    @property
    def anomalous(self) -> bool:
        """Whether the claim's predictor reads the suspect as only one would that was trained on it.

        It reads the mark there (four standard errors above chance) at least half as well as from the victim, but what
        the victim's own answers teach hardly carries over: refitted predictors, over all keys, keep less than a quarter
        of what they read above chance from the victim. Or it reads the mark from the suspect, not from the victim.
        """
        reads = self.claimed > 0.5 + 4 * 0.5 / math.sqrt(self.n)
        carried = (self.refitted + sum(self.control_rates)) / (1 + len(self.control_rates)) - 0.5
        foreign = carried < (self.refitted_victim - 0.5) / 4 and self.claimed - 0.5 > (self.claimed_victim - 0.5) / 2
        return reads and foreign


@dataclass(frozen=True, slots=True, kw_only=True)
class InterimAnalysis:
    """The deciding tests after so many queries; an audit may end here."""

    queries: int  # as the plan counts them, repeats included
    alpha: float  # this look's share
    results: tuple[TestResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditorEncoder:
    """An independent encoder that the auditor brought, to see whether the claim would accuse it."""

    name: str
    sha256: str
    provenance: str  # where it comes from, as stated; empty if nobody said
    values: dict[str, float]  # statistic -> its score; "STATISTIC@QUERIES" at the looks before the last
    problems: tuple[str, ...]  # why its answers cannot be tested


def adjusted(tests: tuple[TestResult, ...]) -> dict[str, float]:
    """Returns the Holm-adjusted p-values of tests, by name."""
    return dict(zip((t.name for t in tests), holm([t.pvalue for t in tests]), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTest:
    """One row as the paper prints it; what a table does not test has no statistic."""

    table: str
    title: str
    suspect: float
    other: float  # the benign encoder's, or the public images'
    other_is: str
    statistic: float | None  # t
    df: int | None
    pvalue: float | None
    alternative: str

    @property
    def effect(self) -> float:
        """The paper's delta mu: suspect minus other."""
        return self.suspect - self.other
