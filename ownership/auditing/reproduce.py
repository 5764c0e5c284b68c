"""Repeat the audit of a report with its own options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ownership.auditing.comparison import TOLERANCE, Reproduction, compare
from ownership.auditing.engine import audit
from ownership.claims.claim import Claim
from ownership.errors import ReportError, ReportIntegrityError
from ownership.io.progress import Progress, silent
from ownership.io.text import printable
from ownership.reports.report import Report
from ownership.suspects.formats.model_file import LoadOptions
from ownership.suspects.suspect import Suspect
from ownership.verdict.records import AuditOptions


def load_options(options: AuditOptions, given: LoadOptions) -> LoadOptions:
    """Return how to load the suspect of a report: as given, and where nothing is given, as the report says.

    Permissions (external data, TorchScript) are taken from `given` alone: a report gives a suspect no permission.
    """
    return replace(
        given,
        arch=options.arch if given.arch is None else given.arch,
        entry=options.entry if given.entry is None else given.entry,
        output=options.onnx_output if given.output is None else given.output,
        pooling=options.pooling if given.pooling == LoadOptions().pooling else given.pooling,
    )


def check_claim(report: Report, claim: Claim) -> None:
    """Raise unless this is the claim of the report.

    Raises:
        ReportIntegrityError: If it is another claim.
        ReportError: If only one of the two is redacted: then other tests are made.
    """
    _check_digest("claim", report.claim.sha256, claim.sha256)
    if set(report.claim.redaction) == set(claim.redaction.parts):
        return
    if report.claim.redaction:
        raise ReportError("this report is of a redacted claim", "give the redacted copy (turnmark claim redact)")
    raise ReportError("this claim is a redacted copy, and the report is of the whole claim", "give the whole claim")


def reproduce(
    report: Report,
    claim: Claim,
    suspect: Suspect,
    *,
    auditor_panel: Sequence[tuple[Suspect, str]] = (),
    models: Sequence[Suspect] | None = None,
    pool: Tensor | None = None,
    tolerance: float = TOLERANCE,
    progress: Progress = silent,
) -> Reproduction:
    """Repeat the audit of a report with the options that it records, and compare.

    Args:
        report: The report.
        claim: The claim of its digest.
        suspect: The suspect of its digest, loaded with `load_options`.
        auditor_panel: The auditor's own encoders, if the report has some. Without them, the report is believed there.
        models: The files of the claim's encoders, likewise.
        pool: The images of the key's pool, likewise.
        tolerance: Largest relative difference of two scores.
        progress: Called before every step.

    Raises:
        ReportIntegrityError: If claim or suspect are not those of the report.
        ReportError: If a pool is given, and the report has no test of it.
        OwnershipError: If the audit cannot be made.
    """
    check_claim(report, claim)
    _check_digest("suspect", report.suspect.sha256, suspect.details().get("sha256", suspect.sha256))
    then, left_out = report.findings, []
    if pool is not None and report.options.pool_seed is None:
        raise ReportError("this report has no test of the pool", "leave the pool out")
    repeated = audit(
        claim, suspect, report.options, auditor_panel=auditor_panel, models=models, pool=pool, progress=progress
    )
    findings = repeated.findings
    if then.auditor_panel and not auditor_panel:
        findings = replace(findings, auditor_panel=then.auditor_panel)
        left_out.append(f"the auditor's own {len(then.auditor_panel)} encoders: --auditor-panel was not given")
    if report.options.pool_seed is not None and pool is None:
        findings = replace(findings, pool_test=then.pool_test, pool_problem=then.pool_problem, queries=then.queries)
        left_out.append("the test of the pool: --pool was not given")
    if then.models_checked is not None and models is None:
        left_out.append("the representations in the claim: --models was not given")
    if then.models_checked is None or models is None:
        findings = replace(findings, models_checked=then.models_checked)
    return compare(report, replace(repeated, findings=findings), tolerance=tolerance, left_out=left_out)


def _check_digest(what: str, stated: str, found: str) -> None:
    if stated != found:
        raise ReportIntegrityError(
            f"this {what} is not the report's: its SHA-256 is {found or 'none'}, the report's {printable(stated)}",
            f"give the {what} that was audited",
        )
