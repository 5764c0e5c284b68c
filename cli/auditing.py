"""What `turnmark audit` does once its options are read: audit one suspect, or several."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cli import render
from cli.suspects import Without, open_suspect, report_folder

if TYPE_CHECKING:
    from ownership import Claim
    from ownership.auditing.batch import AuditOutcome, BatchSummary
    from ownership.io.progress import Progress
    from ownership.reports.report import Report
    from ownership.suspects.formats.open import LoadOptions
    from ownership.suspects.sandbox.encoder import Limits

    Showing = Callable[[], AbstractContextManager[Progress]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything that the options of `turnmark audit` say but for the suspect and the report's folder."""

    claim: Path
    options: LoadOptions
    limits: Limits
    how: Without
    output_kind: str = "representations"
    preprocess: str = "none"
    auditor_panel: Path | None = None
    panel_models: Path | None = None
    stop_early: bool = False
    paper: bool = False
    roots: Path | None = None

    def words(self) -> list[str]:
        """Returns what follows the suspect in the command that repeats this audit."""
        out = ["--claim", str(self.claim)]
        out += ["--preprocess", self.preprocess] if self.preprocess != "none" else []
        out += ["--output-kind", self.output_kind] if self.output_kind != "representations" else []
        for name in ("auditor_panel", "panel_models", "roots"):
            value = getattr(self, name)
            out += [f"--{name.replace('_', '-')}", str(value)] if value else []
        return [*out, *(["--stop-early"] if self.stop_early else []), *(["--paper"] if self.paper else [])]


def audit_one(request: Request, suspect: str, out: Path, showing: Showing, *, resume: bool = False) -> Report:
    """Audits one suspect and writes its report.

    Args:
        request: the options.
        suspect: a file, folder or address.
        out: the report's folder.
        showing: gives what shows progress, once the audit begins.
        resume: take the report that is there, if it is of the same suspect, claim, command and versions.
    """
    from ownership.errors import OwnershipError
    from ownership.io.files import alone_in

    with alone_in(out, OwnershipError):
        return _audit_into(request, suspect, out, showing, resume=resume)


def _audit_into(request: Request, suspect: str, out: Path, showing: Showing, *, resume: bool) -> Report:
    from ownership import SuspectError, audit
    from ownership.io.text import printable
    from ownership.reports.html import save_report
    from ownership.reports.signature import refuse_signed
    from ownership.suspects.preprocessing import parse_preprocess
    from ownership.suspects.suspect import load_folder

    claim = load_claim(request.claim, request.roots)
    tried = parse_preprocess(request.preprocess)
    loaded, command = open_suspect(
        suspect,
        request.options,
        request.limits,
        request.output_kind,
        request.how,
        claim=claim,
        out=out,
        stop_early=request.stop_early,
    )
    try:
        if request.preprocess != "none" and loaded.layers is None:
            raise SuspectError("--preprocess is for models in files", "who embeds the images prepares them, too")
        words = printable(shlex.join([*command, *request.words()]), 4000)
        earlier = _earlier(out, claim.sha256, loaded.sha256, words) if resume else None
        if earlier is not None:
            return earlier
        refuse_signed(out)
        with showing() as progress:
            report = audit(
                claim,
                loaded,
                stop_early=request.stop_early,
                auditor_panel=load_folder(request.auditor_panel) if request.auditor_panel else [],
                panel_models=[m for m, _ in load_folder(request.panel_models)] if request.panel_models else None,
                paper=request.paper,
                tried=tried,
                command=words,
                progress=progress,
            )
    finally:
        loaded.discard()
    save_report(report, out)
    return report


def _earlier(out: Path, claim: str, suspect: str, command: str) -> Report | None:
    """The report in a folder, if it is what an audit of this suspect would write."""
    from ownership.auditing.engine import versions
    from ownership.errors import ReportError
    from ownership.reports.html import write_html
    from ownership.reports.report import Report

    try:
        report = Report.load(out / "report.json")
    except ReportError:
        return None
    made_of = report.claim["sha256"], report.suspect["sha256"], report.command, report.versions
    if made_of != (claim, suspect, command, versions()):
        return None
    if not (out / "report.html").is_file():
        write_html(report, out / "report.html")
    return report


def load_claim(folder: Path, roots: Path | None) -> Claim:
    """Returns a claim, its timestamps checked against root certificates if there are any."""
    from ownership import Claim, ClaimError
    from ownership.attestation.timestamps import load_roots

    claim = Claim.load(folder)
    if roots is None:
        return claim
    if claim.seal is None:
        raise ClaimError("the claim is not sealed, so there are no timestamps to check", "leave out --roots")
    return replace(claim, seal=claim.seal.under(load_roots(roots)))


def audit_batch(request: Request, suspects: list[str], out: Path, jobs: int) -> BatchSummary:
    """Audits several suspects, each with a report of its own in `out`, and writes the summary.

    Run again, it goes on where it stopped.
    """
    from ownership import SuspectError
    from ownership.auditing.batch import audit_batch as run
    from ownership.auditing.batch import folders, summarise

    if request.stop_early or request.panel_models:
        raise SuspectError(
            "--stop-early and --panel-models are for one suspect",
            "a look's share of alpha is smaller among several; check the panel in an audit of one",
        )
    if len(set(suspects)) < len(suspects):
        raise SuspectError("a suspect is given twice", "name each once")
    claim = load_claim(request.claim, request.roots)
    places = dict(folders(suspects, lambda s: str(report_folder(s)).removeprefix("report-")))
    with render.progress() as progress:
        audited = run(suspects, partial(_one_of_several, request, out, places), jobs=jobs, progress=progress)
    several = summarise(claim.sha256, claim.plan.alpha, audited)
    several.save(out)
    return several


def _one_of_several(request: Request, out: Path, places: dict[str, str], suspect: str) -> AuditOutcome:
    from ownership.auditing.batch import AuditOutcome
    from ownership.io.progress import silent

    place = places[suspect]
    report = audit_one(request, suspect, out / place, lambda: nullcontext(silent), resume=True)
    return AuditOutcome(name=suspect, folder=place, report=report)
