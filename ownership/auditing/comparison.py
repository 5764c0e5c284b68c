"""Compare two reports of the same files, number by number, as far as processors and versions round alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ownership.errors import ReportIntegrityError
from ownership.io.records import to_json
from ownership.io.text import printable
from ownership.reports.report import Report
from ownership.verdict.findings import KEY_TEST
from ownership.verdict.results import KeyTest, TestResult
from ownership.verdict.twins import TwinsTest

TOLERANCE = 1e-4
"""Largest relative difference of two scores; a hundredth of it absolute, for scores near 0."""

P_TOLERANCE = 1e-3
"""Largest difference of two p-values of the panel's tests: the precision to which a report prints them."""

KEY_TOLERANCE = 0.02, 1e-4
"""Largest difference of two p-values of the key test, relative and absolute: a decoy may change sides."""

KEY_SCORE_TOLERANCE = 0.002, 0.02
"""The same of its standard scores and its statistic: feature maps are networks, which processors round differently."""

AGREEMENT_TOLERANCE = 0.005
"""Largest difference of two agreements: the baselines are networks, too, and a few neighbours may change places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedTest:
    """One test, in the report and repeated."""

    title: str
    queries: int | None  # of an interim analysis; None: the final analysis
    value: float
    repeated_value: float | None  # None: it was not computed
    pvalue: float
    repeated_pvalue: float | None
    same: bool  # in everything that is compared
    exact: bool = False  # whether the p-values are exact (the key test's)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """The comparison of a report with a repeated audit."""

    report: Report
    repeated: Report
    tests: tuple[ComparedTest, ...]
    differences: tuple[str, ...]  # every number or word that differs; empty: reproduced
    compared: int  # number of numbers and words
    left_out: tuple[str, ...]  # parts that were not computed again, and why
    versions: dict[str, tuple[str | None, str | None]]  # those that differ: in the report, now
    tolerance: float

    def require(self) -> None:
        """Raise ReportIntegrityError if the report was not reproduced."""
        if self.differences:
            shown = "; ".join(self.differences[:3]) + ("; ..." if len(self.differences) > 3 else "")
            raise ReportIntegrityError(
                f"not reproduced: {len(self.differences)} of {self.compared} differ: {shown}",
                "other versions may differ in the last digits, not in a verdict; the lines above name all of them",
            )


def compare(
    report: Report, repeated: Report, *, tolerance: float = TOLERANCE, left_out: Sequence[str] = ()
) -> Reproduction:
    """Return the comparison of two reports of the same files, number by number.

    Compared are all scores, the p-values, the verdict and what was not computed; neither the versions nor what follows
    from the scores alone.
    """
    then, now = _compared(report), _compared(repeated)
    wrong = {
        where: f"{where} {_shown(then.get(where))}, repeated {_shown(now.get(where))}"
        for where in {**then, **now}
        if not _alike(where, then.get(where), now.get(where), tolerance)
    }
    versions = {
        name: (report.versions.get(name), repeated.versions.get(name))
        for name in sorted({*report.versions, *repeated.versions})
        if report.versions.get(name) != repeated.versions.get(name)
    }
    return Reproduction(
        report=report,
        repeated=repeated,
        tests=tuple(_compared_tests(report, repeated, wrong)),
        differences=tuple(wrong.values()),
        compared=len({*then, *now}),
        left_out=tuple(left_out),
        versions=versions,
        tolerance=tolerance,
    )


def _tests(report: Report) -> Iterator[tuple[str, int | None, TestResult]]:
    """Yield every test with the name of its place."""
    for r in report.results:
        yield r.name, None, r
    for interim in report.findings.interim_analyses:
        for r in interim.results:
            yield f"{r.name}@{interim.queries}", interim.queries, r


def _compared(report: Report) -> dict[str, Any]:
    """Return what is compared: place -> number or word."""
    f = report.findings
    found: dict[str, Any] = {"verdict": report.verdict.value, "plan": f.plan.to_dict(), "queries": f.queries}
    suspect = (
        "dim",
        "resized_to",
        "preprocessing",
        "preprocessings_tried",
        "choices",
        "entry",
        "entries_tried",
        "output_kind",
    )
    found |= {name: to_json(getattr(f.suspect, name)) for name in suspect}
    found |= {"decided_after": report.decided_after, "relative_similarity": f.relative_similarity}
    found |= {"problems": [p.code.value for p in f.problems], "auditor_positives": report.decision.auditor_positives}
    found |= {f"{name} skipped": why.code.value for name, why in f.skipped.items()}
    found |= _keys(report) | _twins(f.twins)
    for place, _, r in _tests(report):
        found |= {f"{place} value": r.value, f"{place} p": r.pvalue, f"{place} rank p": r.rank_pvalue}
        found |= _flat(f"{place} members", r.members) | _flat(f"{place} references", r.references)
        found |= _flat(f"{place} image-level", to_json(r.image_level))
    found |= _flat("predictor_check", to_json(f.predictor_check)) | _flat("probe_quality", to_json(f.probe_quality))
    found |= _flat("panel_strength", to_json(f.panel_strength))
    found |= {"models_checked": to_json(f.models_checked)} | _flat("pool_test", to_json(f.pool_test))
    found |= {"pool_problem": None if f.pool_problem is None else f.pool_problem.code.value}
    auditor = {m.name: [_key_counts_as_p(m.values, f.plan.decoys), len(m.problems)] for m in f.auditor_panel}
    found |= _flat("auditor", auditor)
    return found | _flat("paper", to_json(f.paper_tests))


def _keys(report: Report) -> dict[str, Any]:
    """Return what is compared of the key test, at the final and at every interim analysis."""
    found: dict[str, Any] = {"evidence": [e.value for e in report.decision.evidence]}
    for queries, key in _key_tests(report):
        place = "key_test" if queries is None else f"key_test@{queries}"
        exceeding = {"suspect": key.exceeding, "victim": key.victim, **key.references}
        found |= {
            f"{place} statistic": key.statistic,
            f"{place} decoys": key.decoys,
            f"{place} keys tried": key.keys_tried,
        }
        found |= _flat(f"{place} maps", to_json(key.maps))
        found |= {f"{place} {who} key p": (1 + n) / (1 + key.decoys) for who, n in exceeding.items()}
    return found


def _key_counts_as_p(values: Mapping[str, float], decoys: int) -> dict[str, float]:
    """Return the values of an auditor's encoder with p-values instead of numbers of decoys, as for the suspect."""
    keyed = {name: value for name, value in values.items() if name.startswith(KEY_TEST)}
    return {n: v for n, v in values.items() if n not in keyed} | {
        f"{n} key p": (1 + v) / (1 + decoys) for n, v in keyed.items()
    }


def _twins(twins: TwinsTest | None) -> dict[str, Any]:
    """Return what is compared of the test of twins."""
    return {} if twins is None else _flat("twins_test", to_json(twins))


def _flat(place: str, value: Any) -> dict[str, Any]:
    steps: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        steps = sorted(value.items())
    elif isinstance(value, list | tuple):
        steps = list(enumerate(value))
    else:
        return {place: value}
    return {k: v for step, inner in steps for k, v in _flat(f"{place}/{step}", inner).items()}


def _alike(where: str, a: Any, b: Any, tolerance: float) -> bool:
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b))
    if not numbers or a == b:
        return bool(a == b)
    if where.startswith((KEY_TEST, "auditor/")) and where.endswith((" key p", "/z", " statistic")):
        relative, absolute = KEY_TOLERANCE if where.endswith(" key p") else KEY_SCORE_TOLERANCE
        return bool(abs(a - b) <= max(relative * max(abs(a), abs(b)), absolute))
    if where.startswith("panel_strength"):
        return bool(abs(a - b) <= AGREEMENT_TOLERANCE)
    if where.endswith((" p", "/pvalue")):
        return bool(abs(a - b) <= P_TOLERANCE)
    return bool(abs(a - b) <= tolerance * max(abs(a), abs(b), 0.01))


def _compared_tests(report: Report, repeated: Report, wrong: Mapping[str, str]) -> Iterator[ComparedTest]:
    yield from _compared_keys(report, repeated, wrong)
    yield from _compared_twins(report.findings.twins, repeated.findings.twins, wrong)
    found = {place: r for place, _, r in _tests(repeated)}
    for place, queries, r in _tests(report):
        other = found.get(place)
        yield ComparedTest(
            title=r.title,
            queries=queries,
            value=r.value,
            repeated_value=None if other is None else other.value,
            pvalue=r.pvalue,
            repeated_pvalue=None if other is None else other.pvalue,
            same=not any(where.startswith(f"{place} ") for where in wrong),
        )


def _compared_keys(report: Report, repeated: Report, wrong: Mapping[str, str]) -> Iterator[ComparedTest]:
    again = dict(_key_tests(repeated))
    for queries, key in _key_tests(report):
        other, place = again.get(queries), "key_test" if queries is None else f"key_test@{queries}"
        yield ComparedTest(
            title="Key test",
            queries=queries,
            value=key.statistic,
            repeated_value=None if other is None else other.statistic,
            pvalue=key.pvalue,
            repeated_pvalue=None if other is None else other.pvalue,
            same=not any(where == place or where.startswith(f"{place} ") for where in wrong),
            exact=True,
        )


def _compared_twins(
    twins: TwinsTest | None, again: TwinsTest | None, wrong: Mapping[str, str]
) -> Iterator[ComparedTest]:
    if twins is not None:
        yield ComparedTest(
            title="Twins",
            queries=None,
            value=twins.scores[twins.picked],
            repeated_value=None if again is None else again.scores[again.picked],
            pvalue=twins.pvalue,
            repeated_pvalue=None if again is None else again.pvalue,
            same=not any(where.startswith("twins_test") for where in wrong),
            exact=True,
        )


def _key_tests(report: Report) -> Iterator[tuple[int | None, KeyTest]]:
    """Yield the key test of the final analysis (None) and of each interim analysis (its queries), where it was made."""
    findings = report.findings
    for queries, key in ((None, findings.key), *((x.queries, x.key) for x in findings.interim_analyses)):
        if key is not None:
            yield queries, key


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else printable(value)
