"""What `turnmark audit` does once its options are read: audit one suspect, or several."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cli import inputs, render
from cli.ending import heeding_signals
from cli.suspects import Opening, Target, command_words, open_suspect, report_folder
from ownership.io.text import printable

if TYPE_CHECKING:
    from torch import Tensor

    from ownership import Claim, Suspect
    from ownership.auditing.batch import AuditOutcome
    from ownership.io.progress import Progress
    from ownership.reports.batch import BatchSummary
    from ownership.reports.report import Report

    Showing = Callable[[], AbstractContextManager[Progress]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of `turnmark audit`, without the suspect and the report's folder."""

    claim: Path
    opening: Opening
    preprocess: str | None = None
    auditor_panel: Path | None = None
    models: Path | None = None
    pool: str | None = None
    paper_tests: bool = False
    published: str | None = None
    roots: Path | None = None

    def command(self, suspect: str) -> str:
        """Return the command of this audit, for the report's reader: names of files, no paths."""
        out = [*command_words(suspect, self.opening), "--claim", self.claim.resolve().name]
        out += ["--preprocess", self.preprocess] if self.preprocess is not None else []
        kind = self.opening.output_kind
        out += ["--output-kind", kind] if kind != "representations" else []
        for name in ("auditor_panel", "models", "roots"):
            value = getattr(self, name)
            out += [f"--{name.replace('_', '-')}", value.resolve().name] if value else []
        out += ["--pool", Path(self.pool).name] if self.pool else []
        out += ["--stop-early"] if self.opening.stop_early else []
        out += ["--published", self.published] if self.published else []
        out += ["--paper-tests"] if self.paper_tests else []
        return printable(shlex.join(out), 4000)


def audit_one(request: Request, target: Target, showing: Showing, *, resume: bool = False) -> Report:
    """Audit one suspect and write its report.

    Args:
        request: the options.
        target: the suspect and the report's folder.
        showing: opens what shows progress.
        resume: return the report that is there, if it is of the same suspect, claim, command and versions.
    """
    from ownership.errors import OwnershipError
    from ownership.io.files import alone_in
    from ownership.reports.html import save_report
    from ownership.reports.signature import refuse_signed

    out = target.folder
    with alone_in(out, OwnershipError), showing() as progress:
        claim = load_claim(request.claim, request.roots)
        progress("opening the suspect", 0, 1)
        with open_suspect(target, request.opening, claim) as loaded:
            command = request.command(target.suspect)
            earlier = _earlier(out, claim.sha256, loaded.sha256, command) if resume else None
            if earlier is not None:
                return earlier
            refuse_signed(out)
            report = _run(request, claim, loaded, command, progress)
        save_report(report, out)
        return report


def _run(request: Request, claim: Claim, suspect: Suspect, command: str, progress: Progress) -> Report:
    from ownership import AuditOptions, audit
    from ownership.auditing.claim_checks import models_in
    from ownership.suspects.preprocessing import parse_preprocess
    from ownership.suspects.suspect import load_folder

    report = audit(
        claim,
        suspect,
        AuditOptions(
            stop_early=request.opening.stop_early,
            paper_tests=request.paper_tests,
            published=request.published,
            preprocessings=tuple(p.name for p in parse_preprocess(request.preprocess)) if request.preprocess else (),
        ),
        auditor_panel=load_folder(request.auditor_panel) if request.auditor_panel else [],
        models=models_in(request.models, claim) if request.models else None,
        pool=pool_images(request.pool, claim) if request.pool else None,
        progress=progress,
    )
    return replace(report, command=command)


def pool_images(description: str, claim: Claim) -> Tensor:
    """Return the images of a claim's pool, in the size in which its key was made for them."""
    from watermark_training.data import load_data

    shape = None if claim.material is None else claim.material.key.pool.shape
    size = shape[1] if shape is not None and shape[1] == shape[2] else None
    return load_data(description, size=size).images


def _earlier(out: Path, claim: str, suspect: str, command: str) -> Report | None:
    """Return the report in a folder, if it is what an audit of this suspect would write."""
    from ownership.errors import ReportError
    from ownership.reports.html import write_html
    from ownership.reports.report import Report, versions

    try:
        report = Report.load(out / "report.json")
    except ReportError:
        return None
    made_of = report.claim.sha256, report.suspect.sha256, report.command, report.versions
    if made_of != (claim, suspect, command, versions()):
        return None
    if not (out / "report.html").is_file():
        write_html(report, out / "report.html")
    return report


def load_claim(folder: Path, roots: Path | None) -> Claim:
    """Return a claim; its timestamps are checked against root certificates if there are any."""
    from ownership import Claim
    from ownership.attestation.timestamps import load_roots

    claim = Claim.load(folder)
    if roots is None:
        return claim
    return claim.under(load_roots(roots))


def audit_batch(request: Request, suspects: list[str], out: Path, jobs: int) -> BatchSummary:
    """Audit several suspects, each with a report of its own in `out`, and write the summary.

    Run again, it continues where it stopped.
    """
    from ownership.auditing.batch import audit_batch as run
    from ownership.auditing.batch import folders, summarize

    claim = load_claim(request.claim, request.roots)
    places = dict(folders(suspects, lambda s: str(report_folder(s)).removeprefix("report-")))
    with render.progress() as progress:
        audited = run(suspects, partial(_one_of_several, request, out, places), jobs=jobs, progress=progress)
    shown = short_names(suspects)
    audited = [replace(o, name=shown[o.name], refused=_without_path(o, shown[o.name])) for o in audited]
    summary = summarize(claim.sha256, claim.error_rate, audited)
    summary.save(out)
    return summary


def short_names(suspects: Sequence[str]) -> dict[str, str]:
    """Return for each suspect the shortest end of its path that no other one has; addresses stay whole.

    >>> short_names(["/data/a/x.onnx", "/data/b/x.onnx", "y.onnx"])
    {'/data/a/x.onnx': 'a/x.onnx', '/data/b/x.onnx': 'b/x.onnx', 'y.onnx': 'y.onnx'}
    """
    ends = {s: [s] if inputs.is_address(s) else _ends(Path(s)) for s in suspects}
    counts = Counter(end for found in ends.values() for end in found)
    return {s: next((end for end in found if counts[end] == 1), s) for s, found in ends.items()}


def _ends(path: Path) -> list[str]:
    parts = path.parts
    return [Path(*parts[-n:]).as_posix() for n in range(1, len(parts) + 1)]


def _without_path(outcome: AuditOutcome, name: str) -> str | None:
    """Return why a suspect was refused, without the folders on the auditor's machine."""
    if outcome.refused is None:
        return None
    path, said = Path(outcome.name), outcome.refused.removeprefix("suspect: ")
    said = said.replace(printable(outcome.name, 300), name)
    return said.replace(printable(path.parent, 300) + "/", "") if path.is_absolute() else said


def _one_of_several(request: Request, out: Path, places: dict[str, str], suspect: str) -> AuditOutcome:
    from ownership.auditing.batch import AuditOutcome
    from ownership.io.progress import silent

    inputs.check_suspect(suspect, request.opening.probe_folder)
    place = places[suspect]
    with heeding_signals():  # perhaps in a process of its own
        report = audit_one(request, Target(suspect, out / place), lambda: nullcontext(silent), resume=True)
    return AuditOutcome(name=suspect, folder=place, report=report)
