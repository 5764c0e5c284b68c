"""Audit several suspects against one claim, and summarize their reports.

An audit's error rate is that of one suspect. Of ten independent encoders, ten times as many are false positives, so the
summary corrects by Holm over all suspects, tested or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ownership.errors import ClaimIntegrityError, OwnershipError, ReportError
from ownership.io.progress import Progress, silent
from ownership.io.tasks import InFolder
from ownership.io.text import printable
from ownership.reports.batch import BatchSummary, SuspectSummary
from ownership.reports.report import Report
from ownership.stats import holm
from ownership.verdict.multiplicity import capacity, suspect_pvalue
from ownership.verdict.rule import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOutcome:
    """The outcome of one audit of a batch: a report in a folder, or why there is none."""

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
    """Audit suspects, several at a time if requested. One that cannot be audited does not stop the others.

    Args:
        names: Of the suspects.
        audit_one: Audits one of them; sent to other processes if `jobs` is not 1 (joblib).
        jobs: Number of processes (joblib's `n_jobs`).
        progress: Called after every suspect.

    Returns:
        The outcome of each audit, in the order of names.
    """
    import joblib

    found: dict[str, AuditOutcome] = {}
    progress("auditing suspects", 0, len(names))
    run = joblib.delayed(InFolder(_guarded))
    tasks = (run(audit_one, name) for name in names)
    for i, audited in enumerate(joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks)):
        found[audited.name] = audited
        progress("auditing suspects", i + 1, len(names))
    return [found[name] for name in names]


def _guarded(audit_one: Callable[[str], AuditOutcome], name: str) -> AuditOutcome:
    try:
        return audit_one(name)
    except ClaimIntegrityError:  # then no audit of the batch is valid
        raise
    except OwnershipError as e:
        return AuditOutcome(name=name, refused=f"{e.message}" + (f" ({e.hint})" if e.hint else ""))


def summarize(claim_sha256: str, alpha: float, outcomes: Sequence[AuditOutcome]) -> BatchSummary:
    """Return what the audits of several suspects say together.

    H0 of each: that suspect is one more independent encoder of the panel's kinds. Holm (1979) over all suspects keeps
    the probability of any false positive below alpha, whatever their dependence. Suspects that could not be tested
    count, too (p = 1).

    Args:
        claim_sha256: Digest of the claim.
        alpha: Of the claim's plan.
        outcomes: The outcome of each audit.

    Raises:
        ReportError: If a report is of another claim.
    """
    reports = [o.report for o in outcomes if o.report is not None]
    if any(r.claim.sha256 != claim_sha256 for r in reports):
        raise ReportError("a report is of another claim", "choose another --out")
    raw = [None if o.report is None else suspect_pvalue(o.report.findings, o.report.decision) for o in outcomes]
    adjusted = holm([1.0 if p is None else p for p in raw])
    tested = [r.findings for r in reports if r.primary]
    counts = [len(m) for f in tested for t in f.primary for m in t.members.values()]
    return BatchSummary(
        claim_sha256=claim_sha256,
        alpha=alpha,
        suspects=tuple(
            SuspectSummary(
                name=printable(o.name, 300),
                folder=o.folder,
                refused=o.refused,
                sha256=None if o.report is None else o.report.suspect.sha256,
                verdict=None if o.report is None else o.report.verdict,
                pvalue=p,
                adjusted_pvalue=None if p is None else q,
                supported=o.report is not None and o.report.verdict is Verdict.SUPPORTED and q <= alpha,
            )
            for o, p, q in zip(outcomes, raw, adjusted, strict=True)
        ),
        capacity=next((c for f in tested if (c := capacity(f, alpha)) is not None), None),
        smallest_stratum=min(counts, default=None),
    )


def folders(names: Sequence[str], name_of: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Yield each suspect with the name of its report's folder; equal names are numbered."""
    taken: set[str] = set()
    for name in names:
        plain = folder = name_of(name)
        number = 1
        while folder in taken:
            number += 1
            folder = f"{plain}-{number}"
        taken.add(folder)
        yield name, folder
