"""The report: the numbers of one audit, and the verdict derived from them.

The verdict is a property: it is computed from the numbers and the plan each time, and a stored report whose verdict
disagrees with its numbers is refused.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

from ownership.errors import ClaimError, ReportError
from ownership.evidence import SCALES
from ownership.files import read_json, write_json
from ownership.plan import REQUIRED_STRATA, Plan
from ownership.stats import (
    Alternative,
    CaseControlResult,
    ImageLevelTest,
    case_control_test,
    composite_threshold,
    holm,
)

SCHEMA_VERSION = 1


class Verdict(Enum):
    """What the plan's rule says of the numbers; NOT_SUPPORTED means "no evidence for", never "innocent"."""

    SUPPORTED = "SUPPORTED"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    INCONCLUSIVE = "INCONCLUSIVE"


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
            stratum: _test(forward(self.value), scores, self.alternative) for stratum, scores in self._scaled().items()
        }

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
    def beyond_every_member(self) -> bool:
        """Whether the suspect lies beyond every panel member, in the direction of the alternative."""
        values = [v for by_name in self.members.values() for v in by_name.values()]
        return all(self.value > v if self.alternative == "greater" else self.value < v for v in values)

    def threshold(self, alpha: float) -> float:
        """Returns the value, on the natural scale, beyond which p < alpha against every stratum and every member."""
        _, back = SCALES[self.scale]
        return back(composite_threshold(self._scaled().values(), alpha, self.alternative))

    def reaches(self, value: float, alpha: float) -> bool:
        """Returns whether `value` lies beyond the threshold."""
        limit = self.threshold(alpha)
        return value > limit if self.alternative == "greater" else value < limit


@lru_cache(maxsize=256)
def _test(value: float, members: tuple[float, ...], alternative: Alternative) -> CaseControlResult:
    return case_control_test(value, members, alternative)


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

    @property
    def answers(self) -> str:
        """What the suspect gives out, as declared; reports of before there was a choice say nothing."""
        return str(self.suspect.get("answers", "representations"))

    @property
    def deciding(self) -> tuple[TestResult, ...]:
        """The tests that may decide and did run; none on anything but representations."""
        if self.answers != "representations":
            return ()
        return tuple(r for r in self.results if r.name in self.plan.deciding)

    @property
    def adjusted_pvalues(self) -> dict[str, float]:
        """Holm-adjusted p-values of the deciding tests."""
        tests = self.deciding
        return dict(zip((t.name for t in tests), holm([t.pvalue for t in tests]), strict=True))

    @property
    def verdict(self) -> Verdict:
        """The verdict under the plan's rule."""
        return decide(self)[0]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the verdict is what it is, in plain sentences."""
        return decide(self)[1]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as JSON-ready values; every number of the HTML page is in it."""
        alpha = self.plan.alpha / max(1, len(self.deciding))
        results = [
            {
                **asdict(r),
                "missing_strata": list(r.missing_strata),
                "strata": {
                    s: {**asdict(c), "confidence_interval": list(c.confidence_interval)} for s, c in r.strata.items()
                },
                "decides": r.name in self.adjusted_pvalues,
                "pvalue": r.pvalue,
                "adjusted_pvalue": self.adjusted_pvalues.get(r.name),
                "decisive_stratum": r.decisive_stratum,
                "effect_size": r.decisive.effect_size,
                "confidence_interval": list(r.decisive.confidence_interval),
                "threshold": r.threshold(alpha),
                "beyond_every_member": r.beyond_every_member,
            }
            for r in self.results
        ]
        return {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict.value,
            "reasons": list(self.reasons),
            "plan": self.plan.to_dict(),
            "claim": self.claim,
            "suspect": self.suspect,
            "results": results,
            "skipped": self.skipped,
            "problems": list(self.problems),
            "versions": self.versions,
            "command": self.command,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Report:
        """Returns the report stored by `to_dict`.

        Raises:
            ReportError: if it is malformed, of another version, or its verdict does not follow from its numbers.
        """
        if value.get("schema_version") != SCHEMA_VERSION:
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
            )
            stored, derived = value, report.to_dict()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ClaimError) as e:
            raise ReportError("report: a field is missing or malformed") from e
        if stored != derived:
            raise ReportError("report: its verdict or a derived number does not follow from its numbers")
        return report

    def save(self, path: Path) -> None:
        """Writes the report as canonical JSON."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Report:
        """Reads a report written by `save`; raises ReportError if it cannot be."""
        return cls.from_dict(read_json(path, ReportError, "report"))


def _result(value: dict[str, Any]) -> TestResult:
    derived = {
        "strata", "decides", "pvalue", "adjusted_pvalue", "decisive_stratum", "effect_size",
        "confidence_interval", "threshold", "beyond_every_member",
    }  # fmt: skip
    kept = {k: v for k, v in value.items() if k not in derived}
    kept["missing_strata"] = tuple(kept["missing_strata"])
    if kept["image_level"] is not None:
        kept["image_level"] = ImageLevelTest(**kept["image_level"])
    return TestResult(**kept)


def decide(report: Report) -> tuple[Verdict, tuple[str, ...]]:
    """Returns the verdict of rule "turnmark-1" and its reasons (docs/statistics.md; the plan names the rule).

    1. Answers that cannot be tested, that are declared to be no representations, or no deciding test: INCONCLUSIVE.
    2. A deciding test rejects if its Holm-adjusted p is at most alpha and the suspect lies beyond every member.
       One rejection by a test that has every required stratum supports the claim; of tests that lack one, two must
       reject.
    3. No rejection, and no deciding test whose threshold a reference surrogate reaches: INCONCLUSIVE, the claim
       could not have found a theft. The same where a missing stratum asks for two tests and only one could run.
    4. Otherwise NOT_SUPPORTED.
    """
    plan, tests = report.plan, report.deciding
    if report.problems:
        return Verdict.INCONCLUSIVE, report.problems
    if report.answers != "representations":
        return Verdict.INCONCLUSIVE, (
            f"the suspect is declared to give {report.answers}, not representations: the panel is no null for them, "
            "so what can be computed is shown and nothing decides",
        )
    if not tests:
        return Verdict.INCONCLUSIVE, tuple(
            f"{name} could not run: {report.skipped.get(name, 'not in the claim')}" for name in plan.deciding
        )
    adjusted = report.adjusted_pvalues
    rejecting = [t for t in tests if adjusted[t.name] <= plan.alpha and t.beyond_every_member]
    whole = [t for t in tests if not t.missing_strata]
    missing = sorted({s for t in tests for s in t.missing_strata}, key=REQUIRED_STRATA.index)
    lines = []
    for t in tests:
        said = "rejects" if t in rejecting else "does not reject"
        lines.append(
            f"{t.title}: {said} at alpha {plan.alpha:g} (Holm-adjusted p {format_p(adjusted[t.name])}, "
            f"{'beyond' if t.beyond_every_member else 'not beyond'} every panel member)"
        )
    if missing and not whole:
        lines.append(f"no stratum {' or '.join(missing)} in the panel: both deciding tests must reject")
    if len(rejecting) >= 2 or any(t in whole for t in rejecting):
        return Verdict.SUPPORTED, tuple(lines)
    if not whole and len(tests) < 2:
        lines.append("only one deciding test could run, so this claim cannot support anything here")
        return Verdict.INCONCLUSIVE, tuple(lines)
    level = plan.alpha / len(tests)
    tried = [t for t in tests if t.references]
    if tried and not any(t.reaches(v, level) for t in tried for v in t.references.values()):
        lines.append("no reference surrogate reaches any threshold: this claim cannot tell a theft from a stranger")
        return Verdict.INCONCLUSIVE, tuple(lines)
    return Verdict.NOT_SUPPORTED, tuple(lines)


def format_p(p: float) -> str:
    """Returns a p-value for people; a normal-tail extrapolation is never printed below .001 (rule 3).

    >>> format_p(0.00002), format_p(0.0123), format_p(0.95)
    ('< .001', '.012', '.95')
    """
    if p < 0.001:
        return "< .001"
    return f"{p:.3f}"[1:] if p < 0.1 else f"{p:.2f}".removeprefix("0")
