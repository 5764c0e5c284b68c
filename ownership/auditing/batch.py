"""BatchSummary suspects against one claim: each has a report of its own, and more of them are more chances to be wrong.

An audit's error rate holds for one suspect. Of ten innocent ones, ten times as many are called copies, so what is said
of several is corrected by Holm over all of them, tested or not.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ownership.errors import ClaimIntegrityError, OwnershipError, ReportError
from ownership.io.files import write_bytes, write_json
from ownership.io.progress import Progress, silent
from ownership.io.text import printable
from ownership.plan import Plan
from ownership.reports.report import Report
from ownership.stats import holm
from ownership.verdict.results import InterimAnalysis, TestResult
from ownership.verdict.rule import Verdict, supports
from ownership.verdict.strength import placing_reference

SCHEMA_VERSION = 1

SMALLEST_P = 0.001
"""Below it a p-value of so few members is an extrapolation of a normal tail (rule 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One suspect among several."""

    name: str
    folder: str | None  # of its report, in the folder of the summary; None: it could not be audited
    refused: str | None  # why it could not
    sha256: str | None  # of the suspect
    verdict: str | None  # its own report's
    pvalue: float | None  # smallest error rate at which the rule supports the claim; None where nothing was tested
    adjusted_pvalue: float | None  # Holm over all suspects
    supported: bool  # after that correction


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSummary:
    """What is said of several suspects together."""

    claim_sha256: str
    alpha: float  # the claim's: chance of calling any innocent among them a copy
    rows: tuple[Row, ...]
    carries: int | None  # suspects among which half of the claim's reference surrogates would still be found
    smallest_member_count: int | None  # of the strata that decided

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader has to know about so many suspects and so small a panel."""
        n, out = len(self.rows), []
        if self.carries is None:
            out.append("the claim has no reference surrogates, so how many suspects its panel can carry is not known")
        elif n > self.carries:
            out.append(
                f"{n} suspects are more than this panel can carry: among more than {self.carries}, most thefts like "
                "the owner's reference surrogates are missed; a negative finding means little"
            )
        if n > self.sound:
            out.append(
                f"among {n} suspects the first has to reach p < {self.alpha / n:.2g}: below {SMALLEST_P:g}, p-values "
                f"of {self.smallest_member_count or 'so few'} panel members a stratum are an extrapolation of a normal "
                f"tail; up to {self.sound} suspects are sound"
            )
        if refused := sum(r.refused is not None for r in self.rows):
            out.append(f"{refused} of {n} suspects could not be audited; they count as audited in the correction")
        out += [
            f"{row.name} alone is SUPPORTED, among {n} suspects it is not: that many chances call an innocent a copy "
            "too often"
            for row in self.rows
            if row.verdict == Verdict.SUPPORTED.value and not row.supported
        ]
        return tuple(out)

    @property
    def sound(self) -> int:
        """Suspects among which the first still needs no p-value below what is printed."""
        return math.floor(self.alpha / SMALLEST_P + 1e-9)

    @property
    def supported(self) -> tuple[Row, ...]:
        """The suspects that the evidence calls copies, after the correction."""
        return tuple(r for r in self.rows if r.supported)

    @property
    def exit_code(self) -> int:
        """2 if a suspect could not be audited and none is supported; 0 if one is supported; else 1."""
        if self.supported:
            return 0
        return 2 if any(r.refused is not None for r in self.rows) else 1

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON-ready values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "claim_sha256": self.claim_sha256,
            "alpha": self.alpha,
            "correction": "holm",
            "carries": self.carries,
            "sound": self.sound,
            "warnings": list(self.warnings),
            "suspects": [asdict(r) for r in self.rows],
        }

    def save(self, folder: Path) -> None:
        """Writes `summary.json` and `summary.html`."""
        from ownership.reports.html import template
        from ownership.stats import format_p

        write_json(folder / "summary.json", self.to_dict())
        page = template("batch.html.j2").render(several=self, format_p=format_p, percent=f"{100 * self.alpha:g} %")
        write_bytes(folder / "summary.html", page.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOutcome:
    """What came of one suspect: a report in a folder, or why there is none."""

    name: str
    folder: str | None = None
    report: Report | None = None
    refused: str | None = None


def audit_batch(
    names: Sequence[str],
    audit_one: Callable[[str], AuditOutcome],
    *,
    jobs: int = 1,
    progress: Progress = silent,
) -> list[AuditOutcome]:
    """Audits suspects, several at a time if wanted; one that cannot be audited does not stop the others.

    Args:
        names: of the suspects.
        audit_one: audits one of them; sent to other processes if `jobs` is not 1 (joblib).
        jobs: processes at a time (joblib's `n_jobs`).
        progress: called after every suspect.

    Returns:
        What came of each, in the order of names.
    """
    import joblib

    found: dict[str, AuditOutcome] = {}
    progress("auditing suspects", 0, len(names))
    tasks = (joblib.delayed(_guarded)(audit_one, name) for name in names)
    for i, audited in enumerate(joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks)):
        found[audited.name] = audited
        progress("auditing suspects", i + 1, len(names))
    return [found[name] for name in names]


def _guarded(audit_one: Callable[[str], AuditOutcome], name: str) -> AuditOutcome:
    try:
        return audit_one(name)
    except ClaimIntegrityError:  # then all the audits are worth nothing
        raise
    except OwnershipError as e:
        return AuditOutcome(name=name, refused=f"{e.message}" + (f" ({e.hint})" if e.hint else ""))


def summarise(claim_sha256: str, alpha: float, audited: Sequence[AuditOutcome]) -> BatchSummary:
    """Returns what the audits of several suspects say together.

    H0 of each: that suspect is one more independent encoder of the panel's kinds. Holm (1979) over all suspects keeps
    the chance of calling any innocent one a copy below alpha, however they depend on each other; all are in the
    family, also those that could not be tested (p = 1).

    Args:
        claim_sha256: digest of the claim.
        alpha: the claim's.
        audited: what came of each suspect.

    Raises:
        ReportError: if a report is of another claim.
    """
    reports = [a.report for a in audited if a.report is not None]
    if any(r.claim["sha256"] != claim_sha256 for r in reports):
        raise ReportError("a report is of another claim", "choose another --out")
    raw = [None if a.report is None else suspect_pvalue(a.report) for a in audited]
    adjusted = holm([1.0 if p is None else p for p in raw])
    rows = []
    for a, p, q in zip(audited, raw, adjusted, strict=True):
        verdict = None if a.report is None else a.report.verdict
        rows.append(
            Row(
                name=printable(a.name, 300),
                folder=a.folder,
                refused=a.refused,
                sha256=None if a.report is None else a.report.suspect["sha256"],
                verdict=None if verdict is None else verdict.value,
                pvalue=p,
                adjusted_pvalue=None if p is None else q,
                supported=verdict is Verdict.SUPPORTED and q <= alpha,
            )
        )
    tested = [r for r in reports if r.primary]
    counts = [len(m) for r in tested for t in r.primary for m in t.members.values()]
    return BatchSummary(
        claim_sha256=claim_sha256,
        alpha=alpha,
        rows=tuple(rows),
        carries=next((c for r in tested if (c := carried(r, alpha)) is not None), None),
        smallest_member_count=min(counts, default=None),
    )


def suspect_pvalue(report: Report) -> float | None:
    """Returns the smallest error rate at which the plan's rule would support the claim; None if nothing was tested.

    At each look, the smallest Holm-adjusted p at which the rule supports, divided by the look's share of alpha; the
    smallest of these, times the preprocessings that were tried. It is at most the claim's alpha if and only if the
    report says SUPPORTED.
    """
    if report.verdict is Verdict.INCONCLUSIVE or not report.primary:
        return None
    plan, shares = report.plan, _shares(report.plan)
    interim_analyses = list(report.interim_analyses)
    if not report.ended_early:
        interim_analyses.append(InterimAnalysis(queries=0, alpha=plan.final_alpha, results=report.primary))
    smallest = min(_level(x.results) / shares[x.queries] for x in interim_analyses)
    return min(1.0, smallest * max(1, len(report.suspect.get("preprocess_tried", ()))))


def _shares(plan: Plan) -> dict[int, float]:
    """Queries of a look -> its share of alpha; the last look is 0."""
    return {
        **dict(zip(plan.interim_queries, plan.interim_alpha_shares, strict=True)),
        0: 1 - sum(plan.interim_alpha_shares),
    }


def _level(tests: Sequence[TestResult]) -> float:
    """The smallest alpha at which these tests support the claim; infinite if none does."""
    levels = sorted(holm([t.pvalue for t in tests]))
    return next((p for p in levels if supports(tests, p)), math.inf)


def carried(report: Report, alpha: float) -> int | None:
    """Returns among how many suspects half of the reference surrogates would still be found; None without references.

    Each is put in the suspect's place: Holm's first step holds its p-value against alpha / number of suspects.
    """
    names = list(dict.fromkeys(n for r in report.results for n in r.references))
    found = [suspect_pvalue(placing_reference(report, name)) for name in names]
    if not found:
        return None
    middle = median(1.0 if p is None else p for p in found)
    return math.floor(alpha / max(middle, sys.float_info.min))


def folders(names: Sequence[str], name_of: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Yields each suspect with the name of its report's folder; equal ones are numbered."""
    taken: set[str] = set()
    for name in names:
        plain = folder = name_of(name)
        number = 1
        while folder in taken:
            number += 1
            folder = f"{plain}-{number}"
        taken.add(folder)
        yield name, folder
