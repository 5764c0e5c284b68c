"""Findings: the numbers of one audit, and the arithmetic on them. No verdict and no sentence is made here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ownership.evidence.querying import Problem
from ownership.plan import Plan
from ownership.stats import holm
from ownership.verdict.records import ClaimRecord, SuspectRecord
from ownership.verdict.results import (
    AuditorEncoder,
    InterimAnalysis,
    PanelCheck,
    PaperTest,
    PredictorCheck,
    ProbeQuality,
    Skip,
    TestResult,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What an audit measured. The verdict follows from it (`ownership.verdict.rule.decide`)."""

    plan: Plan
    claim: ClaimRecord
    suspect: SuspectRecord
    results: tuple[TestResult, ...]  # of the final analysis
    interim_analyses: tuple[InterimAnalysis, ...] = ()  # before the final one
    skipped: Mapping[str, Skip] = field(default_factory=dict)  # statistic -> why it was not computed
    problems: tuple[Problem, ...] = ()  # why the suspect's responses cannot be tested; empty: they can
    queries: int  # made to the suspect, repeated queries included
    probe_quality: ProbeQuality
    panel_checked: Mapping[str, PanelCheck] | None = None  # panel member -> check of its file; None: not requested
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
    def error_rate(self) -> float:
        """Probability of SUPPORTED for an independent encoder of the panel's kinds, at most.

        The alpha of the plan here, times the number of preprocessings tried: each is tested at its share of alpha.
        """
        return self.plan.alpha * max(1, len(self.suspect.preprocessings_tried))

    @property
    def share(self) -> float:
        """What the smallest unadjusted p-value of the final analysis is compared with: the first step of Holm."""
        return self.plan.final_alpha / max(1, len(self.primary))

    @property
    def ended_early(self) -> bool:
        """Whether an interim analysis decided and no more queries were made: its results are then the final ones."""
        return bool(self.interim_analyses) and self.results == self.interim_analyses[-1].results

    @property
    def relative_similarity(self) -> float | None:
        """Relative similarity of partial RSA, where it is a primary test (`TestResult.relative_similarity`)."""
        return next((c for t in self.primary if (c := relative_similarity_of(t)) is not None), None)

    def placing(self, place: Callable[[TestResult, str], TestResult | None]) -> Findings:
        """Return these findings with another encoder in the place of the suspect.

        Args:
            place: returns that encoder's test for one of the suspect's, or None if it has none. Its second argument
                is empty at the final analysis, and "@QUERIES" at an interim analysis.
        """

        def placed(results: tuple[TestResult, ...], suffix: str = "") -> tuple[TestResult, ...]:
            return tuple(test for r in results if (test := place(r, suffix)) is not None)

        return replace(
            self,
            results=placed(self.results),
            interim_analyses=tuple(
                replace(x, results=placed(x.results, f"@{x.queries}")) for x in self.interim_analyses
            ),
            problems=(),
            auditor_panel=(),
            paper_tests=(),
        )

    def placing_auditor_encoder(self, encoder: AuditorEncoder) -> Findings:
        """Return these findings with one of the auditor's own encoders in the place of the suspect."""

        def place(test: TestResult, suffix: str) -> TestResult | None:
            name = test.name + suffix
            return replace(test, value=encoder.values[name]) if name in encoder.values else None

        return replace(self.placing(place), problems=encoder.problems)

    def placing_reference(self, name: str) -> Findings:
        """Return these findings with a reference surrogate in the place of the suspect; it is not its own reference."""

        def place(test: TestResult, _suffix: str) -> TestResult | None:
            if name not in test.references:
                return None
            others = {n: v for n, v in test.references.items() if n != name}
            return replace(test, value=test.references[name], references=others)

        return self.placing(place)


def adjusted(tests: tuple[TestResult, ...]) -> dict[str, float]:
    """Return the Holm-adjusted p-values of tests, by name."""
    return dict(zip((t.name for t in tests), holm([t.pvalue for t in tests]), strict=True))


def relative_similarity_of(test: TestResult) -> float | None:
    """Return the relative similarity of the one test that may decide by it, partial RSA; None for any other test."""
    return test.relative_similarity if test.name == "partial_rsa" else None
