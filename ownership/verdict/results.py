"""What an audit measures: one test, an interim analysis, an auditor's encoder, and checks on the claim itself."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from ownership.evidence.querying import Problem
from ownership.evidence.statistics import SCALES, STATISTICS
from ownership.keyed.test import MapScore
from ownership.plan import SMALL_OR_PUBLIC_STRATA
from ownership.stats import (
    Alternative,
    CaseControlResult,
    ImageLevelTest,
    case_control_test,
    composite_threshold,
)

MIN_DETECTION_Z = 4.0
"""Standard errors above chance at which `PredictorCheck` counts a watermark as detected."""

MIN_TRANSFER = 0.25
"""Share of the refitted predictors' margin over chance that has to carry over from the victim to the suspect."""

MIN_SEPARABLE_AUC = 0.65
"""Area under the ROC curve from which private and public probes count as separable, with p below `MAX_SEPARABLE_P`."""

MAX_SEPARABLE_P = 1e-3

POOL_ALPHA = 1e-3
"""Level of the test of the pool. It supports no claim: where it rejects, an audit ends inconclusive."""


@dataclass(frozen=True, kw_only=True)
class TestResult:
    """One statistic of the suspect, tested against every stratum of the panel. The largest p-value counts.

    What follows from the scores is computed once, at the first access.
    """

    __test__ = False  # not a pytest class

    name: str
    family: str  # watermark, distance, inference
    title: str
    null_hypothesis: str
    alternative: Alternative
    scale: str  # the scale the t-tests are made on: fisher_z, logit, log, identity
    value: float  # the suspect's score, on its natural scale
    missing_strata: tuple[str, ...]  # required strata without enough members
    rank_pvalue: float  # exact, symmetric, largest over strata
    members: dict[str, dict[str, float]]  # stratum with enough members -> member -> score
    references: dict[str, float]  # reference surrogate -> score
    image_level: ImageLevelTest | None  # the paper's test, for comparison

    @cached_property
    def strata(self) -> dict[str, CaseControlResult]:
        """The t-test against each stratum, on the test's scale.

        Raises:
            ClaimError: if one cannot be computed.
        """
        forward, _ = SCALES[self.scale]
        return {
            stratum: case_control_test(forward(self.value), scores, self.alternative, min_sd=self._min_sd)
            for stratum, scores in self._scaled.items()
        }

    @property
    def _min_sd(self) -> float:
        return STATISTICS[self.name].min_sd if self.name in STATISTICS else 0.0

    @cached_property
    def _scaled(self) -> dict[str, tuple[float, ...]]:
        """The members' scores on the test's scale, in the order of names: no sum depends on a file's order."""
        forward, _ = SCALES[self.scale]
        return {s: tuple(forward(self.members[s][n]) for n in sorted(self.members[s])) for s in sorted(self.members)}

    @cached_property
    def decisive_stratum(self) -> str:
        """The stratum with the largest p-value."""
        return max(self.strata, key=lambda s: self.strata[s].pvalue)

    @property
    def decisive(self) -> CaseControlResult:
        """The t-test against the stratum with the largest p-value."""
        return self.strata[self.decisive_stratum]

    @property
    def pvalue(self) -> float:
        """The largest p-value over the strata (composite null hypothesis)."""
        return self.decisive.pvalue

    @property
    def exceeds_all_controls(self) -> bool:
        """Whether the suspect's score exceeds that of every panel member, in the direction of the alternative."""
        return self.exceeds(v for by_name in self.members.values() for v in by_name.values())

    def exceeds(self, values: Iterable[float]) -> bool:
        """Return whether the suspect's score exceeds all of these, in the direction of the alternative."""
        return all(self.value > v if self.alternative == "greater" else self.value < v for v in values)

    @property
    def relative_similarity(self) -> float | None:
        """Position of the suspect between small and public encoders (0) and the closest reference surrogate (1).

        On the test's scale. 0 is the mean of the stratum, small or public, that is closer to the references. None if
        the panel has neither stratum, or no reference surrogate exceeds it.
        """
        forward, _ = SCALES[self.scale]
        sign = 1 if self.alternative == "greater" else -1
        strata = [scores for stratum, scores in self._scaled.items() if stratum in SMALL_OR_PUBLIC_STRATA]
        if not strata:
            return None
        start = max(sign * sum(scores) / len(scores) for scores in strata)
        end = max((sign * forward(v) for v in self.references.values()), default=start)
        return (sign * forward(self.value) - start) / (end - start) if end > start else None

    def threshold(self, alpha: float) -> float:
        """Return the score beyond which p < alpha for every stratum and all controls are exceeded."""
        _, back = SCALES[self.scale]
        return back(composite_threshold(self._scaled.values(), alpha, self.alternative, min_sd=self._min_sd))

    def reaches(self, value: float, alpha: float) -> bool:
        """Return whether a score is beyond the threshold."""
        limit = self.threshold(alpha)
        return value > limit if self.alternative == "greater" else value < limit


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTest:
    """The test of the keyed watermark: the rank of the key among keys drawn anew, for the suspect and for known copies.

    H0: the suspect does not depend on the key. H1: it predicts the marked directions better than under a key drawn
    anew. Unit: the key. The p-value is exact for every independent suspect (`ownership.keyed.test`).
    """

    __test__ = False  # not a pytest class

    maps: dict[str, MapScore]  # feature map -> score of the suspect
    statistic: float
    decoys: int  # keys drawn anew
    exceeding: int  # how many of them reach the suspect's statistic
    histogram: tuple[int, ...]  # decoys in each bin of the statistic
    edges: tuple[float, ...]  # limits of the bins
    keys_tried: int  # commitments that the owner declares to have made for this victim
    victim: int  # exceeding decoys, for the victim itself
    references: dict[str, int]  # reference surrogate -> exceeding decoys

    @property
    def pvalue(self) -> float:
        """The exact p-value for one commitment."""
        return (1 + self.exceeding) / (1 + self.decoys)

    @property
    def adjusted_pvalue(self) -> float:
        """The p-value times the number of keys that the owner tried (Bonferroni)."""
        return min(1.0, self.pvalue * self.keys_tried)

    def placing(self, exceeding: int) -> KeyTest:
        """Return the test of another encoder, of which only the number of exceeding decoys is known."""
        return replace(self, exceeding=exceeding)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTest:
    """Whether the suspect answers the key's probes as it answers other images of their pool.

    H0: which images are probes does not show in the responses. H1: it does: a gate answers the probes with another
    encoder. Unit: the image. The p-value is exact (`ownership.evidence.pool_test`).
    """

    __test__ = False  # not a pytest class

    probes: int  # that were compared
    others: int  # other images of the pool
    explained: float  # share of the labels' variance that a linear classifier explains
    permutations: int
    reaching: int  # how many permutations of the labels reach that share

    @property
    def pvalue(self) -> float:
        """The exact p-value."""
        return (1 + self.reaching) / (1 + self.permutations)

    @property
    def rejects(self) -> bool:
        """Whether the suspect treats probes differently."""
        return self.pvalue <= POOL_ALPHA


@dataclass(frozen=True, slots=True, kw_only=True)
class InterimAnalysis:
    """The tests after some of the queries; an audit may end here."""

    queries: int  # as the plan counts them, repeated queries included
    alpha: float  # share of the plan's alpha that is spent here by the primary tests
    key_alpha: float  # and by the key test
    results: tuple[TestResult, ...]
    key: KeyTest | None = None


class SkipCode(StrEnum):
    """Why a statistic was not computed."""

    NOT_APPLICABLE = "not_applicable"  # the statistic does not apply to this claim or these responses
    DECIDED_EARLY = "decided_early"  # an interim analysis supported the claim, and no more queries were made
    UNUSABLE_RESPONSES = "unusable_responses"
    OUTPUT_KIND = "output_kind"  # it needs representations; the suspect is declared to return something else
    REDACTED = "redacted"  # the owner withheld the private images
    SEPARABLE_PROBES = "separable_probes"  # private and public probes differ without any encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Why one statistic was not computed."""

    code: SkipCode
    detail: str = ""  # of NOT_APPLICABLE, in words; of OUTPUT_KIND, the kind


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditorEncoder:
    """An independent encoder that the auditor brought, to measure false positives of the claim."""

    name: str
    sha256: str
    provenance: str  # where it comes from, as stated; empty: not stated
    values: dict[str, float]  # statistic -> score; "STATISTIC@QUERIES" at an interim analysis
    problems: tuple[Problem, ...]  # why its responses cannot be tested


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCheck:
    """Whether the representations that the claim holds of an encoder were computed again from its file.

    Representations that differ end the audit.
    """

    sha256: str  # of its file, as the claim states it
    recomputed: bool  # False: no file of this SHA-256 was given


@dataclass(frozen=True, slots=True, kw_only=True)
class Separability:
    """How well a linear model on simple features tells private from public probes, without any encoder."""

    auc: float  # area under the ROC curve
    pvalue: float  # Mann-Whitney, one-sided

    @property
    def separable(self) -> bool:
        """Whether the two sets differ so much that a difference between them does not show training."""
        return self.auc >= MIN_SEPARABLE_AUC and self.pvalue < MAX_SEPARABLE_P


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeQuality:
    """What is wrong with a claim's probes."""

    public: int  # number of public probes
    duplicates: int  # of them, those whose pixels occurred before
    rotated: int  # number of rotated watermark probes
    mislabeled_rotations: int  # of them, those that are not the stated public probe rotated by the stated angle
    private: int  # number of private probes that the checks below are of; 0: not checked
    shared_private: int  # of them, those that are public probes, too
    separability: Separability | None  # None: not checked

    @property
    def dataset_inference_valid(self) -> bool:
        """Whether a difference between private and public probes can be due to the encoder."""
        return self.separability is None or not self.separability.separable


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorCheck:
    """Watermark success rates of the claim's predictor, and of linear predictors refitted to the victim's responses."""

    claimed: float  # of the claim's predictor, on the suspect
    claimed_victim: float  # of the claim's predictor, on the victim
    refitted: float  # of a refitted predictor for the claim's key, on the suspect
    control_rates: tuple[float, ...]  # of refitted predictors for control keys, on the suspect
    refitted_victim: float  # mean over the refitted predictors, on the victim
    n: int  # probes that the refitted predictors were evaluated on

    @property
    def anomalous(self) -> bool:
        """Whether the claim's predictor fits the suspect as if it had been trained on it.

        True if the claim's predictor detects the watermark in the suspect (`MIN_DETECTION_Z`) at least half as well as
        in the victim, although predictors refitted to the victim's responses do not transfer (`MIN_TRANSFER`).
        """
        detected = self.claimed > 0.5 + MIN_DETECTION_Z * 0.5 / math.sqrt(self.n)
        transferred = (self.refitted + sum(self.control_rates)) / (1 + len(self.control_rates)) - 0.5
        no_transfer = transferred < (self.refitted_victim - 0.5) * MIN_TRANSFER
        return detected and no_transfer and self.claimed - 0.5 > (self.claimed_victim - 0.5) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTest:
    """One row of a table of the paper; a row without a test has no statistic."""

    table: str
    title: str
    suspect: float
    other: float  # of the benign encoder, or of the public images
    other_is: str
    statistic: float | None  # t
    df: int | None
    pvalue: float | None
    alternative: str

    @property
    def effect(self) -> float:
        """The paper's delta mu: suspect minus other."""
        return self.suspect - self.other
