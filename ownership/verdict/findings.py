"""Findings: the numbers of one audit, and the arithmetic on them. No verdict and no sentence is made here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ownership.evidence.querying import Problem
from ownership.plan import Plan
from ownership.stats import holm
from ownership.verdict.panel_strength import PanelStrength
from ownership.verdict.records import ClaimRecord, SuspectRecord
from ownership.verdict.results import (
    AuditorEncoder,
    InterimAnalysis,
    KeyTest,
    ModelCheck,
    PaperTest,
    PoolTest,
    PredictorCheck,
    ProbeQuality,
    Skip,
    TestResult,
)
from ownership.verdict.twins import TwinsTest

KEY_TEST = "key_test"
"""Name of the key test where tests go by names; an auditor's encoder has its number of exceeding decoys there."""

TWINS_TEST = "twins_test"
"""The same of the test of twins, with the number of exceeding twins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What an audit measured. The verdict follows from it (`ownership.verdict.rule.decide`)."""

    plan: Plan
    claim: ClaimRecord
    suspect: SuspectRecord
    key: KeyTest | None = None  # of the final analysis; None: the claim has no key, or it could not be tested
    twins: TwinsTest | None = None  # of the final analysis; None: the claim has none, or no final analysis was made
    results: tuple[TestResult, ...]  # of the final analysis
    interim_analyses: tuple[InterimAnalysis, ...] = ()  # before the final one
    pool_test: PoolTest | None = None  # None: not requested, nothing to learn from it, or it could not be made
    pool_problem: Problem | None = None  # why it could not be made, where that is due to the suspect
    skipped: Mapping[str, Skip] = field(default_factory=dict)  # statistic -> why it was not computed
    problems: tuple[Problem, ...] = ()  # why the suspect's responses cannot be tested; empty: they can
    queries: int  # made to the suspect, repeated queries included
    probe_quality: ProbeQuality
    panel_strength: PanelStrength | None = None  # None: the claim has no panel
    models_checked: Mapping[str, ModelCheck] | None = None  # encoder of the claim -> check; None: not requested
    predictor_check: PredictorCheck | None = None
    auditor_panel: tuple[AuditorEncoder, ...] = ()
    paper_tests: tuple[PaperTest, ...] = ()  # where they were requested

    @property
    def primary(self) -> tuple[TestResult, ...]:
        """The tests that decide and could be made. None decides on anything but representations."""
        if self.suspect.output_kind != "representations":
            return ()
        return tuple(r for r in self.results if r.name in self.plan.primary)

    @property
    def adjusted_pvalues(self) -> dict[str, float]:
        """Holm-adjusted p-values of the primary tests at the final analysis, by name."""
        return adjusted(self.primary)

    @property
    def trials(self) -> int:
        """Number of variants tried: each is tested at its share of alpha, which is what the plan here says."""
        return max(1, len(self.suspect.preprocessings_tried)) * max(1, len(self.suspect.entries_tried))

    @property
    def key_error_rate(self) -> float:
        """Probability that the key test supports the claim against an independent suspect of any kind, at most."""
        return self.plan.key_alpha * self.trials

    @property
    def panel_error_rate(self) -> float:
        """Probability that the primary tests do, for an independent encoder of the panel's kinds, at most."""
        return self.plan.alpha * self.trials

    @property
    def twins_error_rate(self) -> float:
        """Probability that the test of twins supports the claim against an independent suspect, at most."""
        return self.plan.twins_alpha * self.trials if self.twins_decide else 0.0

    @property
    def error_rate(self) -> float:
        """Probability of SUPPORTED for an independent encoder, at most: of the evidence that there is, summed."""
        key = self.key_error_rate if self.has_key else 0.0
        return key + self.twins_error_rate + (self.panel_error_rate if self.primary or not self.has_key else 0.0)

    @property
    def twins_decide(self) -> bool:
        """Whether the test of twins was made and can reject: they are enough, and the owner cannot have picked."""
        if self.twins is None or self.claim.twins is None or not self.claim.twins.bound:
            return False
        return self.twins.least_pvalue <= self.plan.twins_alpha

    @property
    def has_key(self) -> bool:
        """Whether the key test was made, at the final or at an interim analysis."""
        return self.key is not None or any(x.key is not None for x in self.interim_analyses)

    @property
    def share(self) -> float:
        """What the smallest unadjusted p-value of the final analysis is compared with: the first step of Holm."""
        return self.plan.final_alpha / max(1, len(self.primary))

    @property
    def ended_early(self) -> bool:
        """Whether an interim analysis decided and no more queries were made: its results are then the final ones."""
        last = self.interim_analyses[-1] if self.interim_analyses else None
        return last is not None and (self.results, self.key) == (last.results, last.key)

    @property
    def weak_strata(self) -> tuple[str, ...]:
        """The required strata that do not count as controls, because their members are weaker than the victim."""
        return () if self.panel_strength is None else self.panel_strength.weak_strata

    @property
    def relative_similarity(self) -> float | None:
        """Relative similarity of partial RSA, where it is a primary test (`TestResult.relative_similarity`)."""
        return next((c for t in self.primary if (c := relative_similarity_of(t)) is not None), None)

    @property
    def twins_reject(self) -> bool:
        """Whether the test of twins rejects: it can, and its p-value times the picks tried is at most its alpha."""
        return self.twins is not None and self.twins_decide and self.twins.adjusted_pvalue <= self.plan.twins_alpha

    def placing(
        self,
        place: Callable[[TestResult, str], TestResult | None],
        place_key: Callable[[KeyTest, str], KeyTest | None],
        place_twins: Callable[[TwinsTest], TwinsTest | None],
    ) -> Findings:
        """Return these findings with another encoder in the place of the suspect.

        Args:
            place: returns that encoder's test for one of the suspect's, or None if it has none. Its second argument
                is empty at the final analysis, and "@QUERIES" at an interim analysis.
            place_key: the same for the key test.
            place_twins: the same for the test of twins.
        """

        def keyed(key: KeyTest | None, suffix: str = "") -> KeyTest | None:
            return None if key is None else place_key(key, suffix)

        def placed(results: tuple[TestResult, ...], suffix: str = "") -> tuple[TestResult, ...]:
            return tuple(test for r in results if (test := place(r, suffix)) is not None)

        return replace(
            self,
            key=keyed(self.key),
            twins=None if self.twins is None else place_twins(self.twins),
            results=placed(self.results),
            interim_analyses=tuple(
                replace(x, results=placed(x.results, f"@{x.queries}"), key=keyed(x.key, f"@{x.queries}"))
                for x in self.interim_analyses
            ),
            problems=(),
            pool_test=None,
            pool_problem=None,
            auditor_panel=(),
            paper_tests=(),
        )

    def placing_auditor_encoder(self, encoder: AuditorEncoder) -> Findings:
        """Return these findings with one of the auditor's own encoders in the place of the suspect."""

        def place(test: TestResult, suffix: str) -> TestResult | None:
            name = test.name + suffix
            return replace(test, value=encoder.values[name]) if name in encoder.values else None

        def place_key(key: KeyTest, suffix: str) -> KeyTest | None:
            found = encoder.values.get(KEY_TEST + suffix)
            return None if found is None else key.placing(int(found))

        def place_twins(twins: TwinsTest) -> TwinsTest | None:
            found = encoder.values.get(TWINS_TEST)
            return None if found is None else twins.placing(int(found))

        return replace(self.placing(place, place_key, place_twins), problems=encoder.problems)

    def placing_reference(self, name: str) -> Findings:
        """Return these findings with a reference surrogate in the place of the suspect; it is not its own reference."""

        def place(test: TestResult, _suffix: str) -> TestResult | None:
            if name not in test.references:
                return None
            others = {n: v for n, v in test.references.items() if n != name}
            return replace(test, value=test.references[name], references=others)

        def place_key(key: KeyTest, _suffix: str) -> KeyTest | None:
            return key.placing(key.references[name]) if name in key.references else None

        def place_twins(twins: TwinsTest) -> TwinsTest | None:
            return twins.placing(twins.references[name]) if name in twins.references else None

        return self.placing(place, place_key, place_twins)


def adjusted(tests: tuple[TestResult, ...]) -> dict[str, float]:
    """Return the Holm-adjusted p-values of tests, by name."""
    return dict(zip((t.name for t in tests), holm([t.pvalue for t in tests]), strict=True))


def relative_similarity_of(test: TestResult) -> float | None:
    """Return the relative similarity of the one test that may decide by it, partial RSA; None for any other test."""
    return test.relative_similarity if test.name == "partial_rsa" else None
