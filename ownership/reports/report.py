"""The report: the numbers of one audit, and the verdict derived from them.

The verdict is a property: it is computed from the numbers and the plan each time, and a stored report whose verdict
disagrees with its numbers is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ownership.errors import ClaimError, ReportError
from ownership.io.files import read_json, write_json
from ownership.plan import Plan
from ownership.stats import ImageLevelTest
from ownership.verdict.explanations import Explanation, explanations_of
from ownership.verdict.results import AuditorEncoder, InterimAnalysis, PaperTest, PredictorCheck, TestResult, adjusted
from ownership.verdict.rule import Verdict, decide, relative_similarity_of, supports
from ownership.verdict.strength import Strength, strength_of

SCHEMA_VERSION = 3
"""Version 2 added the looks, version 3 what follows from the numbers in `strength` and `explanations`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an audit found: the inputs of the decision; the decision is derived."""

    plan: Plan
    claim: dict[str, Any]  # sha256, victim, panel composition, references, dropped
    suspect: dict[str, Any]  # name, format, sha256, size, architecture, dim, answers
    results: tuple[TestResult, ...]
    skipped: dict[str, str]  # statistic -> why it was not computed
    problems: tuple[str, ...]  # why the suspect's answers cannot be tested; empty if they can
    versions: dict[str, str]
    command: str  # reproduces this report
    interim_analyses: tuple[InterimAnalysis, ...] = ()  # before the last one, which is `results`
    queries: int | None = None  # answers that the suspect gave in all, repeats included; None in the first reports
    panel_checked: dict[str, str] | None = None  # member -> what recomputing its answers said; None: not asked for
    notes: tuple[str, ...] = ()  # what is odd about the claim's probes
    predictor_check: PredictorCheck | None = None  # the mark as read by predictors fitted afterwards
    auditor_panel: tuple[AuditorEncoder, ...] = ()
    paper: tuple[PaperTest, ...] = ()  # the paper's own tests, if asked for; they never decide
    schema: int = SCHEMA_VERSION  # that it is written in, 2 or later; a plan of rule turnmark-1 is written in the first

    @property
    def auditor_positives(self) -> tuple[str, ...]:
        """The auditor's own independents that the rule would call copies, by the tests that ran on the suspect."""
        return tuple(m.name for m in self.auditor_panel if self._of(m).verdict is Verdict.SUPPORTED)

    def _of(self, member: AuditorEncoder) -> Report:
        """This report with a member of the auditor's own in the suspect's place."""

        def place(test: TestResult, suffix: str) -> TestResult | None:
            name = test.name + suffix
            return replace(test, value=member.values[name]) if name in member.values else None

        return replace(self.placing(place), problems=member.problems)

    def placing(self, place: Callable[[TestResult, str], TestResult | None]) -> Report:
        """Returns this report with another encoder in the suspect's place.

        Args:
            place: gives a test of that encoder for one of the suspect; None: it has none. Its second argument is empty
                at the last look, "@QUERIES" at the others.
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
            paper=(),
        )

    @property
    def ended_early(self) -> bool:
        """Whether an early look decided and nothing more was asked: its results are then the last ones."""
        return bool(self.interim_analyses) and self.results == self.interim_analyses[-1].results

    @property
    def output_kind(self) -> str:
        """What the suspect gives out, as declared; reports of before there was a choice say nothing."""
        return str(self.suspect.get("output_kind", "representations"))

    @property
    def primary(self) -> tuple[TestResult, ...]:
        """The tests that may decide and did run; none on anything but representations."""
        if self.output_kind != "representations":
            return ()
        return tuple(r for r in self.results if r.name in self.plan.primary)

    @property
    def adjusted_pvalues(self) -> dict[str, float]:
        """Holm-adjusted p-values of the deciding tests at the last look."""
        return adjusted(self.primary)

    @property
    def relative_similarity(self) -> float | None:
        """How far partial RSA places the suspect on the way from small and public encoders to the owner's copies."""
        return next((c for t in self.primary if (c := relative_similarity_of(t)) is not None), None)

    @property
    def error_rate(self) -> float:
        """The claim's alpha: what the plan here says, times the preprocessings that were tried, each at its share."""
        return self.plan.alpha * max(1, len(self.suspect.get("preprocess_tried", ())))

    @property
    def share(self) -> float:
        """What the smallest unadjusted p-value of the last look is held against: Holm's first step."""
        return self.plan.final_alpha / max(1, len(self.primary))

    @property
    def decided_after(self) -> int | None:
        """Queries after which the claim was supported; None if it was not, or in reports of before queries counted."""
        if self.verdict is not Verdict.SUPPORTED:
            return None
        return next((x.queries for x in self.interim_analyses if supports(x.results, x.alpha)), self.queries)

    @property
    def verdict(self) -> Verdict:
        """The verdict under the plan's rule."""
        return decide(self)[0]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the verdict is what it is, in plain sentences."""
        return decide(self)[1]

    @property
    def strength(self) -> Strength:
        """How strong the verdict is."""
        return strength_of(self)

    @property
    def explanations(self) -> tuple[Explanation, ...]:
        """The innocent explanations considered, each with what the panel says."""
        return explanations_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as JSON-ready values; every number of the HTML page is in it."""
        first = self.plan.rule == "turnmark-1"
        later: dict[str, Any] = {
            "interim_analyses": [
                {
                    "queries": x.queries,
                    "alpha": x.alpha,
                    "results": [_numbers(r, adjusted(x.results), x.alpha / max(1, len(x.results))) for r in x.results],
                }
                for x in self.interim_analyses
            ],
            "relative_similarity": self.relative_similarity,
            "queries": self.queries,
            "decided_after": self.decided_after,
            "panel_checked": self.panel_checked,
            "notes": list(self.notes),
            "predictor_check": None
            if self.predictor_check is None
            else {**asdict(self.predictor_check), "control_rates": list(self.predictor_check.control_rates)},
        }
        if self.schema >= 3:
            later["strength"] = self.strength.to_dict()
            later["explanations"] = [e.to_dict() for e in self.explanations]
        return {
            **({} if first else later),
            "schema_version": 1 if first else self.schema,
            "verdict": self.verdict.value,
            "reasons": list(self.reasons),
            "plan": self.plan.to_dict(),
            "claim": self.claim,
            "suspect": self.suspect,
            "results": [_numbers(r, self.adjusted_pvalues, self.share) for r in self.results],
            "skipped": self.skipped,
            "problems": list(self.problems),
            "versions": self.versions,
            "command": self.command,
            "auditor_panel": [{**asdict(m), "problems": list(m.problems)} for m in self.auditor_panel],
            "auditor_positives": list(self.auditor_positives),
            "paper": [asdict(t) for t in self.paper],
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Report:
        """Returns the report stored by `to_dict`.

        Raises:
            ReportError: if it is malformed, of another version, or its verdict does not follow from its numbers.
        """
        version = value.get("schema_version")
        if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
            raise ReportError("report of another schema version", "update turnmark")
        try:
            report = cls(
                plan=Plan.from_dict(value["plan"]),
                claim=value["claim"],
                suspect=value["suspect"],
                results=tuple(_result(r) for r in value["results"]),
                skipped=value["skipped"],
                problems=tuple(value["problems"]),
                versions=value["versions"],
                command=value["command"],
                interim_analyses=tuple(
                    InterimAnalysis(**{**x, "results": tuple(map(_result, x["results"]))})
                    for x in value.get("interim_analyses", ())
                ),
                queries=value.get("queries"),
                panel_checked=value.get("panel_checked"),
                notes=tuple(value.get("notes", ())),
                predictor_check=_decoys(value.get("predictor_check")),
                auditor_panel=tuple(
                    AuditorEncoder(**{**m, "problems": tuple(m["problems"])}) for m in value.get("auditor_panel", ())
                ),
                paper=tuple(PaperTest(**t) for t in value.get("paper", ())),
                schema=SCHEMA_VERSION if version == 1 else version,
            )
            derived = report.to_dict()
            # the first reports lack the last three fields, the first ones of schema 2 the relative similarity
            added: dict[str, Any] = {"auditor_panel": [], "auditor_positives": [], "paper": []} if version < 3 else {}
            if version == 2:
                added["relative_similarity"] = derived["relative_similarity"]
            stored = {**added, **value}
            if version == 1:  # its sentences were worded otherwise; the numbers must follow
                stored["reasons"] = derived["reasons"]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ClaimError) as e:
            raise ReportError("report: a field is missing or malformed") from e
        if not _follows(stored, derived):
            raise ReportError("report: its verdict or a derived number does not follow from its numbers")
        return report

    def save(self, path: Path) -> None:
        """Writes the report as canonical JSON."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Report:
        """Reads a report written by `save`; raises ReportError if it cannot be."""
        return cls.from_dict(read_json(path, ReportError, "report"))


def _follows(stored: Any, derived: Any) -> bool:
    """Whether a stored value is the derived one; the last digits depend on versions of libraries and on the machine."""
    if isinstance(stored, dict) and isinstance(derived, dict):
        return stored.keys() == derived.keys() and all(_follows(v, derived[k]) for k, v in stored.items())
    if isinstance(stored, list) and isinstance(derived, list):
        return len(stored) == len(derived) and all(map(_follows, stored, derived))
    if isinstance(stored, float) and isinstance(derived, float):
        return math.isclose(stored, derived, rel_tol=1e-9, abs_tol=1e-12)
    return bool(stored == derived)


def _decoys(value: dict[str, Any] | None) -> PredictorCheck | None:
    return None if value is None else PredictorCheck(**{**value, "control_rates": tuple(value["control_rates"])})


def _numbers(r: TestResult, adjusted_pvalues: dict[str, float], share: float) -> dict[str, Any]:
    """A test with all that follows from it."""
    return {
        **asdict(r),
        "missing_strata": list(r.missing_strata),
        "strata": {s: {**asdict(c), "confidence_interval": list(c.confidence_interval)} for s, c in r.strata.items()},
        "primary": r.name in adjusted_pvalues,
        "pvalue": r.pvalue,
        "adjusted_pvalue": adjusted_pvalues.get(r.name),
        "decisive_stratum": r.decisive_stratum,
        "effect_size": r.decisive.effect_size,
        "confidence_interval": list(r.decisive.confidence_interval),
        "threshold": r.threshold(share),
        "exceeds_all_controls": r.exceeds_all_controls,
    }


def _result(value: dict[str, Any]) -> TestResult:
    derived = {
        "strata", "primary", "pvalue", "adjusted_pvalue", "decisive_stratum", "effect_size",
        "confidence_interval", "threshold", "exceeds_all_controls",
    }  # fmt: skip
    kept = {k: v for k, v in value.items() if k not in derived}
    kept["missing_strata"] = tuple(kept["missing_strata"])
    if kept["image_level"] is not None:
        kept["image_level"] = ImageLevelTest(**kept["image_level"])
    return TestResult(**kept)
