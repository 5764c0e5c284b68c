"""The report: findings, the decision that follows from them, and how the audit was made.

The decision is derived when a report is made or read, and never taken from a file: a stored report is refused if its
verdict, its reasons or any other derived number does not follow from its findings.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ownership.errors import ClaimError, ReportError
from ownership.evidence.querying import Problem
from ownership.io.files import read_json, write_json
from ownership.io.records import from_json, to_json
from ownership.plan import Plan
from ownership.reports.consistency import check_consistent
from ownership.reports.stored import (
    follows,
    interim_from_dict,
    interim_to_dict,
    key_to_dict,
    stored_key,
    stored_twins,
    test_from_dict,
    test_to_dict,
    twins_to_dict,
)
from ownership.verdict.explanations import Explanation, explanations_of
from ownership.verdict.findings import Findings
from ownership.verdict.panel_strength import PanelStrength
from ownership.verdict.records import AuditOptions, ClaimRecord, SuspectRecord
from ownership.verdict.results import (
    AuditorEncoder,
    KeyTest,
    ModelCheck,
    PaperTest,
    PoolTest,
    PredictorCheck,
    ProbeQuality,
    Skip,
    TestResult,
)
from ownership.verdict.rule import (
    Decision,
    Reason,
    Verdict,
    decide,
    first_key_rejection,
    first_rejection,
    rejecting_tests,
)
from ownership.verdict.strength import Strength, strength_of
from ownership.verdict.twins import TwinsTest

SCHEMA_VERSION = 1

NAMED_VERSIONS = ("turnmark", "torch", "numpy", "scipy", "scikit-learn", "onnxruntime-gpu", "onnxruntime")
"""Packages that the numbers of a report may depend on."""

_FINDINGS: dict[str, Any] = {
    "claim": ClaimRecord,
    "suspect": SuspectRecord,
    "key": KeyTest | None,
    "twins": TwinsTest | None,
    "pool_test": PoolTest | None,
    "pool_problem": Problem | None,
    "skipped": dict[str, Skip],
    "problems": tuple[Problem, ...],
    "queries": int,
    "probe_quality": ProbeQuality,
    "panel_strength": PanelStrength | None,
    "models_checked": dict[str, ModelCheck] | None,
    "predictor_check": PredictorCheck | None,
    "auditor_panel": tuple[AuditorEncoder, ...],
    "paper_tests": tuple[PaperTest, ...],
}
"""Fields of `Findings` that are stored as they are -> their types."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of one audit.

    Attributes:
        findings: The numbers.
        decision: The verdict and its reasons, derived from the findings.
        options: The options of the audit, from which it can be repeated.
        versions: Package -> version, of the numbers.
        command: The command line that made it, for people; no path but file names, and read by no program.
    """

    findings: Findings
    options: AuditOptions
    versions: Mapping[str, str]
    command: str = ""
    decision: Decision = field(init=False)
    schema: int = field(default=SCHEMA_VERSION, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decision", decide(self.findings))

    @property
    def plan(self) -> Plan:
        """The claim's plan, as applied."""
        return self.findings.plan

    @property
    def claim(self) -> ClaimRecord:
        """The claim that was tested against."""
        return self.findings.claim

    @property
    def suspect(self) -> SuspectRecord:
        """The suspect."""
        return self.findings.suspect

    @property
    def results(self) -> tuple[TestResult, ...]:
        """Every test of the final analysis."""
        return self.findings.results

    @property
    def primary(self) -> tuple[TestResult, ...]:
        """The tests that decide."""
        return self.findings.primary

    @property
    def adjusted_pvalues(self) -> dict[str, float]:
        """Holm-adjusted p-values of the tests that decide, by name."""
        return self.findings.adjusted_pvalues

    @property
    def verdict(self) -> Verdict:
        """The verdict of the rule."""
        return self.decision.verdict

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why the verdict is what it is, as codes; `ownership.reports.sentences.reason` words them."""
        return self.decision.reasons

    @cached_property
    def rejecting(self) -> frozenset[str]:
        """Names of the primary tests that reject."""
        return rejecting_tests(self.findings)

    @property
    def decided_after(self) -> int | None:
        """Number of queries after which the claim was supported; None if it was not."""
        if self.verdict is not Verdict.SUPPORTED:
            return None
        analyses = (first_rejection(self.findings), first_key_rejection(self.findings))
        return min((x.queries for x in analyses if x is not None), default=self.findings.queries)

    @cached_property
    def strength(self) -> Strength:
        """The strength of the verdict."""
        return strength_of(self.findings, self.decision)

    @cached_property
    def explanations(self) -> tuple[Explanation, ...]:
        """The alternative explanations considered, each with what the panel says."""
        return explanations_of(self.findings, self.decision)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values; every number of the HTML report is in it."""
        f = self.findings
        return {
            "schema_version": self.schema,
            "verdict": self.verdict.value,
            "reasons": to_json(self.reasons),
            "auditor_positives": list(self.decision.auditor_positives),
            "decided_after": self.decided_after,
            "relative_similarity": f.relative_similarity,
            "strength": to_json(self.strength),
            "explanations": to_json(self.explanations),
            "plan": f.plan.to_dict(),
            "claim": to_json(f.claim),
            "suspect": to_json(f.suspect),
            "options": to_json(self.options),
            "evidence": to_json(self.decision.evidence),
            "key": key_to_dict(f.key, self.plan.key_alpha * self.plan.final_share),
            "twins": twins_to_dict(f),
            "results": [test_to_dict(r, f.adjusted_pvalues, self.rejecting, f.share) for r in f.results],
            "interim_analyses": [interim_to_dict(x) for x in f.interim_analyses],
            "pool_test": to_json(f.pool_test),
            "pool_problem": to_json(f.pool_problem),
            "skipped": to_json(f.skipped),
            "problems": to_json(f.problems),
            "queries": f.queries,
            "probe_quality": to_json(f.probe_quality),
            "panel_strength": to_json(f.panel_strength),
            "models_checked": to_json(f.models_checked),
            "predictor_check": to_json(f.predictor_check),
            "auditor_panel": to_json(f.auditor_panel),
            "paper_tests": to_json(f.paper_tests),
            "versions": dict(self.versions),
            "command": self.command,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Report:
        """Return the report stored by `to_dict`.

        Raises:
            ReportError: if it is malformed, of another schema, or a derived value does not follow from the findings.
        """
        if value.get("schema_version") != SCHEMA_VERSION or isinstance(value["schema_version"], bool):
            raise ReportError("report of another schema version", "update turnmark")
        try:
            stored = {"key": stored_key(value["key"]), "twins": stored_twins(value["twins"])}
            findings = {name: value[name] for name in _FINDINGS} | stored
            report = cls(
                findings=Findings(
                    plan=Plan.from_dict(value["plan"]),
                    results=tuple(map(test_from_dict, value["results"])),
                    interim_analyses=tuple(map(interim_from_dict, value["interim_analyses"])),
                    **{name: from_json(_FINDINGS[name], found) for name, found in findings.items()},
                ),
                options=from_json(AuditOptions, value["options"]),
                versions=from_json(dict[str, str], value["versions"]),
                command=from_json(str, value["command"]),
            )
            check_consistent(report.findings, report.options)
            derived = report.to_dict()
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, ClaimError) as e:
            raise ReportError("report: a field is missing or malformed") from e
        if not follows(value, derived):
            raise ReportError("report: its verdict or a derived number does not follow from its numbers")
        return report

    def save(self, path: Path | str) -> None:
        """Write the report as canonical JSON."""
        path = Path(path)
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path | str) -> Report:
        """Return the report written by `save`; raise ReportError if it cannot be read."""
        path = Path(path)
        return cls.from_dict(read_json(path, ReportError, "report"))


def versions() -> dict[str, str]:
    """Return the versions that numbers may depend on."""
    out = {"python": platform.python_version(), "platform": platform.system() + " " + platform.machine()}
    for package in NAMED_VERSIONS:
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            continue
    return out
