"""What people see: tables and error lines; results on stdout, all else on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli import progress as showing
from cli.ending import drop_output
from ownership.errors import OwnershipError
from ownership.io.text import printable

if TYPE_CHECKING:
    from attacks_for_eval.demo import Row
    from ownership.auditing.comparison import Reproduction
    from ownership.claims.key_ranks import KeyPower
    from ownership.claims.power import Power
    from ownership.reports.batch import BatchSummary
    from ownership.reports.report import Report

SHOW_BASE_CHECKPOINT = (
    "if the model that training started from is public, it and its other fine-tunes are independent of this watermark: "
    "add them to the claim (turnmark claim build --panel sibling:PATH); if it was never published, use "
    "--base-checkpoint-is-private there"
)


class _Output(Console):
    """A console whose reader may leave (`| head -1`)."""

    def on_broken_pipe(self) -> None:
        """Go on without output; the base class would exit with 1, which is the code of a verdict."""
        drop_output(sys.stderr if self.stderr else sys.stdout)


def _console(*, stderr: bool) -> Console:
    """Return a console that writes no ANSI sequences unless a terminal reads them, whatever the environment says."""
    stream = sys.stderr if stderr else sys.stdout
    return _Output(stderr=stderr, highlight=False, force_terminal=None if stream.isatty() else False)


STARTED = time.monotonic()
"""When the command started."""
LOADING = "loading images"
out = _console(stderr=False)
err = _console(stderr=True)


def encoder_files(folder: Path, *, onnx: bool) -> str:
    """Return the encoder's files of a folder that a command wrote, for its last line."""
    names = ["encoder.safetensors", "encoder.onnx"] if onnx else ["encoder.safetensors"]
    return ", ".join(f"{folder}/{name}" for name in names)


def line(text: str) -> None:
    """Print a line on stdout as it is, however long."""
    out.print(text, markup=False, soft_wrap=True)


def data(value: object, *, sort_keys: bool = False) -> None:
    """Print JSON on stdout."""
    try:
        print(json.dumps(value, indent=2, sort_keys=sort_keys), flush=True)
    except BrokenPipeError:
        drop_output(sys.stdout)


def error(e: OwnershipError) -> None:
    """Print an error as one line, and its hint as another."""
    err.print(f"[bold red]error:[/] {escape(printable(e.message, 400))}", soft_wrap=True)
    if e.hint:
        err.print(f"[bold]hint:[/] {escape(printable(e.hint, 400))}", soft_wrap=True)


def warn(text: str) -> None:
    """Print a line of advice, also while a progress bar is shown."""
    err.print(f"[bold yellow]note:[/] {escape(printable(text, 400))}", soft_wrap=True)


def skipped(names: Sequence[str]) -> None:
    """Print which files were left out."""
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        warn(f"skipped {len(names)} unreadable images: {', '.join(names[:3])}{more}")


def interrupted() -> None:
    """Print that the run was interrupted."""
    with suppress(OSError):  # after SIGHUP there may be no terminal
        err.print("interrupted; finished parts are kept, and the same command continues from there")


def progress(what: str = "starting") -> AbstractContextManager[showing.Shown]:
    """Show progress on stderr; see `cli.progress`. What was imported before counts as silence."""
    return showing.progress(err, what, quiet_since=STARTED)


def report(r: Report) -> None:
    """Print a report's verdict, reasons and tests."""
    from ownership.reports import key_text, preparation_text, sentences, strength_text, twins_text
    from ownership.reports.claim_text import seal_lines

    colour = {"SUPPORTED": "red", "NOT_SUPPORTED": "green", "INCONCLUSIVE": "yellow"}[r.verdict.value]
    out.print(f"[bold {colour}]{r.verdict.value}[/]  {escape(r.suspect.name)}")
    out.print(escape(sentences.verdict(r)))
    if summary := key_text.key_summary(r):
        out.print(escape(summary))
    if summary := twins_text.twins_summary(r):
        out.print(escape(summary))
    if summary := sentences.tests_summary(r):
        out.print(escape(summary))
    out.print(escape(strength_text.strength(r.strength, r.verdict, panel=bool(r.claim.panel))))
    f = r.findings
    early = f"; supported after {r.decided_after}" if r.decided_after and f.interim_analyses else ""
    out.print(f"{f.queries} queries made to the suspect, repeated queries included{early}")
    for choice in preparation_text.preparation(r.suspect):
        out.print(f"  - {escape(choice)}")
    for reason in sentences.reasons(r):
        out.print(f"  - {escape(reason)}")
    for line in seal_lines(r.claim.seal):
        out.print(f"  - the claim: {escape(line)}", soft_wrap=True)
    for note in sentences.probe_notes(f.probe_quality):
        out.print(f"  - [yellow]the claim's probes:[/] {escape(note)}")
    if f.predictor_check is not None and f.predictor_check.anomalous:
        out.print(f"  - [yellow]the claim's watermark:[/] {escape(sentences.predictor_note(f.predictor_check))}")
    if f.models_checked is not None:
        out.print(f"  - the claim's representations: {escape(printable(sentences.models_checked(r), 4000))}")
    _tests(r)
    _paper_tests(r)


def _tests(r: Report) -> None:
    """Print the tests of a report as a table."""
    from ownership.reports.glossary import format_exact_p, format_number, format_p
    from ownership.verdict.rule import Evidence

    f = r.findings
    if not r.results and f.key is None and f.twins is None:
        return
    table = Table(box=None, padding=(0, 1))
    for name in ("test", "suspect", "threshold", "p", "rejects"):
        table.add_column(name, justify="left" if name in ("test", "rejects") else "right")
    if f.key is not None:
        rejects = "yes" if Evidence.KEY in r.decision.evidence else "no"
        table.add_row("Key test", format_number(f.key.statistic), "–", format_exact_p(f.key.pvalue), rejects)
    if f.twins is not None:
        rejects = "yes" if Evidence.TWINS in r.decision.evidence else "no" if f.twins_decide else "secondary"
        shown = format_number(f.twins.scores[f.twins.picked])
        table.add_row("Twins", shown, "–", format_exact_p(f.twins.pvalue), rejects)
    for t in r.results:
        primary = t in r.primary
        limit = t.threshold(f.share)
        table.add_row(
            t.title,
            format_number(t.value),
            format_number(limit),
            format_p(t.pvalue),
            "secondary" if not primary else "yes" if t.name in r.rejecting else "no",
        )
    out.print(table)


def _paper_tests(r: Report) -> None:
    """Print the tests of the paper, where they were requested."""
    from ownership.reports.glossary import format_number

    if not r.findings.paper_tests:
        return
    table = Table(box=None, padding=(0, 1), title="tests of the paper: for comparison, they give false positives")
    for name in ("table", "what", "suspect", "other", "t", "p"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for row in r.findings.paper_tests:
        p = "–" if row.pvalue is None else f"{row.pvalue:.2g}"
        numbers = [format_number(x) for x in (row.suspect, row.other, row.statistic)]
        table.add_row(row.table, row.title, *numbers, p)
    out.print(table)


def demo(results: Sequence[Row], title: str) -> None:
    """Print the audits of the demo, one row each: verdict, p of the key test, z of each feature map."""
    from ownership.reports.glossary import format_exact_p

    keys = [row.report.findings.key for row in results]
    maps = next((list(key.maps) for key in keys if key is not None), [])
    out.print(f"{title}; p of the key test, z of its feature maps", markup=False)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("suspect", "format", "verdict"):
        table.add_column(name, no_wrap=True)
    for name in ("p", *maps):
        table.add_column(name, justify="right", no_wrap=True)
    for row, key in zip(results, keys, strict=True):
        found = [] if key is None else [format_exact_p(key.pvalue), *(f"{key.maps[name].z:.1f}" for name in maps)]
        verdict = row.report.verdict.value + ("" if row.as_expected else "!")
        table.add_row(row.name, row.format, verdict, *found)
    out.print(table)


def several(s: BatchSummary) -> None:
    """Print the summary of several suspects."""
    from ownership.reports.batch import warning_sentence
    from ownership.reports.glossary import format_exact_p, format_p

    shown = format_exact_p if s.exact else format_p
    table = Table(box=None, padding=(0, 1))
    table.add_column("suspect", overflow="fold")
    table.add_column(f"among {len(s.suspects)}", no_wrap=True)
    for name in ("p", "adjusted p"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in s.suspects:
        p, adjusted = ("–" if x is None else shown(x) for x in (row.pvalue, row.adjusted_pvalue))
        said = "SUPPORTED" if row.supported else row.verdict if row.verdict == "INCONCLUSIVE" else "NOT_SUPPORTED"
        table.add_row(escape(printable(row.name)), said if row.refused is None else "refused", p, adjusted)
    out.print(table)
    for row in s.suspects:
        if row.refused is not None:
            line(f"refused: {printable(row.name)}: {printable(row.refused, 400)}")
    for warning in s.warnings:
        out.print(f"[yellow]note:[/] {escape(warning_sentence(warning))}", soft_wrap=True)


def reproduction(r: Reproduction) -> None:
    """Print a report's numbers beside those of the repeated audit, and each that differs."""
    from ownership.auditing.comparison import P_TOLERANCE
    from ownership.reports.glossary import format_exact_p, format_number, format_p

    table = Table(box=None, padding=(0, 1))
    for name in ("test", "queries", "report", "repeated", "p", "repeated", "same"):
        table.add_column(name, justify="left" if name in ("test", "same") else "right")
    for row in r.tests:
        printed = format_exact_p if row.exact else format_p
        p = "–" if row.repeated_pvalue is None else printed(row.repeated_pvalue)
        session = "all" if row.queries is None else str(row.queries)
        numbers = (format_number(row.value), format_number(row.repeated_value), printed(row.pvalue), p)
        table.add_row(escape(row.title), session, *numbers, "yes" if row.same else "NO")
    out.print(table)
    lines = [f"not computed again: {what}" for what in r.left_out]
    lines += [
        f"other version: {name} {then or 'none'}, now {now or 'none'}" for name, (then, now) in r.versions.items()
    ]
    lines += [f"differs: {what}" for what in r.differences]
    for line in lines:
        out.print(escape(printable(line, 400)), soft_wrap=True)
    if not r.differences:
        out.print(
            f"reproduced: {r.repeated.verdict.value}, {r.compared} numbers and words the same (scores within "
            f"{r.tolerance:g} relative, p-values within {P_TOLERANCE:g})",
            soft_wrap=True,
        )


def key_power(rows: list[KeyPower]) -> None:
    """Print the power of the key test, by number of probes."""
    table = Table(box=None, padding=(0, 1))
    for name in ("probes", "surrogate", "found", "power", "95 %"):
        table.add_column(name, justify="left" if name == "surrogate" else "right", no_wrap=True)
    for row in rows:
        low, high = row.interval
        found = f"{row.found} of {row.subsets}"
        name = row.reference.removeprefix("reference_")
        table.add_row(str(row.probes), name, found, f"{row.power:.2f}", f"{low:.2f}–{high:.2f}")
    out.print(table)
    out.print("the key test; found: random subsets of the probes with which it rejects", markup=False)


def power(found: dict[int, list[Power]], wanted: float) -> None:
    """Print the power of a claim, by number of public probes."""
    table = Table(box=None, padding=(0, 1))
    for name in ("probes", "test", "surrogate", "effect", "power", "95 %", "members"):
        text = name in ("test", "surrogate")
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    for n, rows in found.items():
        for p in rows:
            table.add_row(
                str(n),
                p.statistic,
                p.reference.removeprefix("reference_"),
                f"{p.effect_size:.1f}",
                f"{p.power:.2f}",
                f"{p.interval[0]:.2f}–{p.interval[1]:.2f}",
                "> 200" if p.members_needed is None else str(p.members_needed),
            )
    out.print(table)
    out.print(
        "power: the probability that a suspect as close to the victim as this reference surrogate is detected, in the "
        "stratum where it is lowest, with its 95 % interval. effect: distance from the panel's mean in its standard "
        f"deviations, uncertain for a small panel. members: of each stratum, for a power of {wanted:g}; "
        "turnmark panel --members trains more."
    )
