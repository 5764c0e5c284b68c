"""Auditing again what a report is of, and comparing number by number: whether anybody else gets what it says."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from ownership.auditing.engine import audit
from ownership.claims.claim import Claim
from ownership.errors import ReportError, ReportIntegrityError
from ownership.io.progress import Progress, silent
from ownership.io.text import printable
from ownership.reports.report import Report
from ownership.suspects.formats.open import LoadOptions
from ownership.suspects.preprocessing import Preprocess, parse_preprocess
from ownership.suspects.suspect import Suspect
from ownership.verdict.results import TestResult

TOLERANCE = 1e-4
"""Largest difference of two scores, relative; a hundredth of it absolute, for scores near 0."""

P_TOLERANCE = 1e-3
"""Largest difference of two p-values: what a report prints of them."""

VALUED = {"arch", "output", "pooling"}
FLAGS = {"stop-early", "paper"}
OTHER_VALUED = {
    "claim", "preprocess", "output_kind", "auditor-panel", "panel-models", "roots", "probes", "api", "model", "transcript",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """How an audit was made, as far as a report's command says what its numbers do not.

    Nothing is taken from it that gives a suspect leave to do more, or that names a file.
    """

    arch: str | None = None
    output: str | None = None
    pooling: str = "cls"
    stop_early: bool = False
    paper: bool = False

    def options(self, given: LoadOptions) -> LoadOptions:
        """Returns how to load the suspect: as given, and where nothing was, as then."""
        nothing = LoadOptions()
        kept = {n: getattr(self, n) for n in VALUED if getattr(given, n) == getattr(nothing, n)}
        return replace(given, **kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One statistic, in the report and again."""

    title: str
    queries: int | None  # of a look; None: at all probes
    value: float
    again: float | None  # None: it was not computed
    pvalue: float
    pvalue_again: float | None
    same: bool  # all that is compared of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """What auditing again gave."""

    report: Report
    again: Report
    rows: tuple[Row, ...]
    differences: tuple[str, ...]  # every number or word that is not the same; empty: reproduced
    compared: int  # numbers and words
    left_out: tuple[str, ...]  # parts that were not computed again, and why
    versions: dict[str, tuple[str | None, str | None]]  # those that differ: then, now
    tolerance: float

    def require(self) -> None:
        """Raises ReportIntegrityError if the report was not reproduced."""
        if self.differences:
            shown = "; ".join(self.differences[:3]) + ("; ..." if len(self.differences) > 3 else "")
            raise ReportIntegrityError(
                f"not reproduced: {len(self.differences)} of {self.compared} differ: {shown}",
                "other versions may differ in the last digits, not in a verdict; the lines above name all of them",
            )


def circumstances(command: str) -> Circumstances:
    """Returns what a report's command says.

    >>> circumstances("turnmark audit 'a b.onnx' --output h --claim --paper --stop-early")
    Circumstances(arch=None, output='h', pooling='cls', stop_early=True, paper=False)

    Raises:
        ReportError: if it is no command line.
    """
    try:
        words = iter(shlex.split(command)[3:])
    except ValueError as e:
        raise ReportError(f"the report's command cannot be read ({printable(e)})", "it was cut or changed") from e
    found: dict[str, Any] = {}
    for word in words:
        name = word.removeprefix("--") if word.startswith("--") else ""
        if name in FLAGS:
            found[name.replace("-", "_")] = True
        elif name in VALUED | OTHER_VALUED:
            value = next(words, "")
            found |= {name: value} if name in VALUED else {}
    return Circumstances(**found)


def preprocessings(report: Report) -> tuple[Preprocess, ...]:
    """Returns what was done to images, or all that was tried; raises SuspectError for what is unknown."""
    names = report.suspect.get("preprocess_tried") or [report.suspect.get("preprocess", "none")]
    return tuple(p for name in names for p in parse_preprocess(str(name)))


def check_claim(report: Report, claim: Claim) -> None:
    """Raises ReportIntegrityError unless this is the claim that the report is of."""
    _same_digest("claim", report.claim.get("sha256"), claim.sha256)


def reproduce(
    report: Report,
    claim: Claim,
    suspect: Suspect,
    *,
    how: Circumstances,
    auditor_panel: Sequence[tuple[Suspect, str]] = (),
    panel_models: Sequence[Suspect] | None = None,
    tolerance: float = TOLERANCE,
    progress: Progress = silent,
) -> Reproduction:
    """Audits again what a report is of, in the same way, and compares.

    Args:
        report: what is to be reproduced.
        claim: of its digest.
        suspect: of its digest.
        how: from the report's command.
        auditor_panel: the auditor's own encoders, if the report has some; without them, the report is believed there.
        panel_models: the panel's files, likewise.
        tolerance: of scores, relative.
        progress: called after every step.

    Raises:
        ReportIntegrityError: if claim or suspect are not those of the report.
        OwnershipError: if the audit cannot be made.
    """
    check_claim(report, claim)
    _same_digest("suspect", report.suspect.get("sha256"), suspect.details().get("sha256", suspect.sha256))
    again = audit(
        claim,
        suspect,
        stop_early=how.stop_early,
        auditor_panel=auditor_panel,
        panel_models=panel_models,
        paper=how.paper,
        tried=preprocessings(report),
        command=report.command,
        progress=progress,
    )
    left_out = []
    if report.auditor_panel and not auditor_panel:
        again = replace(again, auditor_panel=report.auditor_panel)
        left_out.append(f"the auditor's own {len(report.auditor_panel)} encoders: --auditor-panel was not given")
    if report.panel_checked is not None and panel_models is None:
        left_out.append("the panel's answers: --panel-models was not given")
    if report.panel_checked is None or panel_models is None:
        again = replace(again, panel_checked=report.panel_checked)
    return compare(report, again, tolerance=tolerance, left_out=left_out)


def compare(
    report: Report, again: Report, *, tolerance: float = TOLERANCE, left_out: Sequence[str] = ()
) -> Reproduction:
    """Returns what two reports of the same files have in common, number by number.

    Compared are the scores of everybody, the p-values, the verdict and what was not computed; not the sentences, the
    versions, nor what follows from those scores alone.
    """
    known = {r.name for _, _, r in _tests(report)} | set(report.skipped)
    added = sorted({r.name for r in again.results} - known)  # by a later version
    now_known = {name: why for name, why in again.skipped.items() if name in known}
    same_tests = replace(again, results=tuple(r for r in again.results if r.name in known), skipped=now_known)
    then, now = _leaves(report), _leaves(same_tests)
    if report.queries is None:  # the first reports did not count
        for leaves, name in product((then, now), ("queries", "decided_after")):
            leaves.pop(name, None)
    wrong = {
        where: f"{where} {_shown(then.get(where))}, again {_shown(now.get(where))}"
        for where in {**then, **now}
        if not _alike(where, then.get(where), now.get(where), tolerance)
    }
    versions = {
        name: (report.versions.get(name), again.versions.get(name))
        for name in sorted({*report.versions, *again.versions})
        if report.versions.get(name) != again.versions.get(name)
    }
    return Reproduction(
        report=report,
        again=again,
        rows=tuple(_rows(report, again, wrong)),
        differences=tuple(wrong.values()),
        compared=len({*then, *now}),
        left_out=(*left_out, *(f"{name}: the report is of before that test" for name in added)),
        versions=versions,
        tolerance=tolerance,
    )


def _same_digest(what: str, stated: object, found: str) -> None:
    if stated != found:
        raise ReportIntegrityError(
            f"this {what} is not the report's: its SHA-256 is {found or 'none'}, the report's {printable(stated)}",
            f"give the {what} that was audited",
        )


def _tests(report: Report) -> Iterator[tuple[str, int | None, TestResult]]:
    """Every test with the name of its place."""
    for r in report.results:
        yield r.name, None, r
    for interim in report.interim_analyses:
        for r in interim.results:
            yield f"{r.name}@{interim.queries}", interim.queries, r


def _leaves(report: Report) -> dict[str, Any]:
    """What is compared: place -> number or word."""
    content = report.to_dict()
    found: dict[str, Any] = {"verdict": report.verdict.value, "plan": content["plan"]}
    found |= {k: report.suspect.get(k) for k in ("dim", "resized_to", "preprocess_tried")}
    found |= {"preprocess": report.suspect.get("preprocess", "none"), "output_kind": report.output_kind}
    found |= {"problems": len(report.problems)} | {f"{name} computed": False for name in report.skipped}
    found |= {k: content[k] for k in ("queries", "decided_after", "relative_similarity") if k in content}
    found["auditor_positives"] = list(report.auditor_positives)
    for place, _, r in _tests(report):
        found[f"{place} value"] = r.value
        found[f"{place} p"] = r.pvalue
        found[f"{place} rank p"] = r.rank_pvalue
        found |= _flat(f"{place} members", r.members) | _flat(f"{place} references", r.references)
        found |= _flat(f"{place} image-level", None if r.image_level is None else asdict(r.image_level))
    if "predictor_check" in content:  # not in reports of the first schema
        found |= _flat("predictor_check", content["predictor_check"]) | {"panel_checked": report.panel_checked}
    found |= _flat("auditor", {m.name: [m.values, len(m.problems)] for m in report.auditor_panel})
    return found | _flat("paper", [asdict(t) for t in report.paper])


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
    if where.endswith((" p", "/pvalue")):
        return bool(abs(a - b) <= P_TOLERANCE)
    return bool(abs(a - b) <= tolerance * max(abs(a), abs(b), 0.01))


def _rows(report: Report, again: Report, wrong: Mapping[str, str]) -> Iterator[Row]:
    found = {place: r for place, _, r in _tests(again)}
    for place, queries, r in _tests(report):
        other = found.get(place)
        yield Row(
            title=r.title,
            queries=queries,
            value=r.value,
            again=None if other is None else other.value,
            pvalue=r.pvalue,
            pvalue_again=None if other is None else other.pvalue,
            same=not any(where.startswith(f"{place} ") for where in wrong),
        )


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else printable(value)
