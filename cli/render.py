"""What people see: progress, tables and error lines, all on stderr but the results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ownership.errors import OwnershipError
from ownership.io.progress import Progress as Show
from ownership.io.text import printable

if TYPE_CHECKING:
    from ownership.auditing.batch import BatchSummary
    from ownership.auditing.reproduce import Reproduction
    from ownership.claims.power import Power
    from ownership.reports.report import Report

SHOW_ANCESTOR = (
    "if the model it came from is public, it and its other fine-tunes are no copies: show them to the claim "
    "(turnmark claim build --panel sibling:PATH); if it is yours alone, say --base-checkpoint-is-private there"
)

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def error(e: OwnershipError) -> None:
    """Prints an error as one line, and its hint as another."""
    err.print(f"[bold red]error:[/] {escape(printable(e.message, 400))}", soft_wrap=True)
    if e.hint:
        err.print(f"[bold]hint:[/] {escape(printable(e.hint, 400))}", soft_wrap=True)


def warn(line: str) -> None:
    """Prints a line of advice, while a progress bar is shown, too."""
    err.print(f"[bold yellow]note:[/] {escape(printable(line, 400))}", soft_wrap=True)


def skipped(names: Sequence[str]) -> None:
    """Says which files were left out."""
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        warn(f"skipped {len(names)} unreadable images: {', '.join(names[:3])}{more}")


def interrupted() -> None:
    """Says that the run was interrupted."""
    err.print("interrupted; what was finished is kept, the same command goes on from there")


@contextmanager
def progress(*, counted: bool = True) -> Iterator[Show]:
    """Shows one progress bar on stderr while the work inside calls what is yielded.

    Args:
        counted: show "done/total"; the demo counts in thousandths of a step and does not.
    """
    columns = [TextColumn("{task.description:<34}"), BarColumn(bar_width=30)]
    columns += [MofNCompleteColumn()] if counted else [TextColumn("{task.percentage:>3.0f} %")]
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=err, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show


def report(r: Report) -> None:
    """Prints a report's verdict, reasons and tests."""
    from ownership.claims.seal import seal_lines
    from ownership.reports.glossary import format_number
    from ownership.reports.html import verdict_sentence
    from ownership.stats import format_p

    colour = {"SUPPORTED": "red", "NOT_SUPPORTED": "green", "INCONCLUSIVE": "yellow"}[r.verdict.value]
    out.print(f"[bold {colour}]{r.verdict.value}[/]  {escape(r.suspect['name'])}")
    out.print(escape(verdict_sentence(r)))
    if r.queries is not None:
        found = f"; supported after {r.decided_after}" if r.decided_after and r.interim_analyses else ""
        out.print(f"{r.queries} queries asked of the suspect, repeats included{found}")
    for reason in r.reasons:
        out.print(f"  - {escape(reason)}")
    for line in seal_lines(r.claim.get("seal")):
        out.print(f"  - the claim: {escape(line)}", soft_wrap=True)
    for note in r.notes:
        out.print(f"  - [yellow]the claim's probes:[/] {escape(note)}")
    if r.predictor_check is not None and r.predictor_check.anomalous:
        out.print(
            f"  - [yellow]the claim's mark:[/] its predictor reads {r.predictor_check.claimed:.2f} from the suspect, one "
            f"fitted to the victim's own answers {r.predictor_check.refitted:.2f}: it may have been trained on the suspect"
        )
    if r.panel_checked is not None:
        verified = sum(said == "verified" for said in r.panel_checked.values())
        out.print(f"  - {verified} of {len(r.panel_checked)} panel members' answers computed anew from their files")
    if not r.results:
        return
    table = Table(box=None, padding=(0, 1))
    for name in ("test", "suspect", "threshold", "p", "primary"):
        table.add_column(name, justify="left" if name in ("test", "primary") else "right")
    for t in r.results:
        primary = t in r.primary
        limit = t.threshold(r.share)
        table.add_row(
            t.title,
            format_number(t.value),
            format_number(limit),
            format_p(t.pvalue),
            "yes" if primary else "shown only",
        )
    out.print(table)
    if not r.paper:
        return
    table = Table(box=None, padding=(0, 1), title="the paper's own tests: for comparison, they convict innocents")
    for name in ("table", "what", "suspect", "other", "t", "p"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for row in r.paper:
        p = "–" if row.pvalue is None else f"{row.pvalue:.2g}"
        numbers = [format_number(x) for x in (row.suspect, row.other, row.statistic)]
        table.add_row(row.table, row.title, *numbers, p)
    out.print(table)


def several(s: BatchSummary) -> None:
    """Prints what is said of several suspects together."""
    from ownership.stats import format_p

    table = Table(box=None, padding=(0, 1))
    for name in ("suspect", f"among {len(s.rows)}", "p", "adjusted p", "its own report"):
        table.add_column(name, justify="right" if name in ("p", "adjusted p") else "left", overflow="fold")
    for row in s.rows:
        p, adjusted = ("–" if x is None else format_p(x) for x in (row.pvalue, row.adjusted_pvalue))
        if row.refused is not None:
            table.add_row(
                escape(printable(row.name)), f"refused: {escape(printable(row.refused, 400))}", p, adjusted, "–"
            )
            continue
        said = "SUPPORTED" if row.supported else row.verdict if row.verdict == "INCONCLUSIVE" else "NOT_SUPPORTED"
        table.add_row(escape(printable(row.name)), said, p, adjusted, f"{row.verdict}, {row.folder}")
    out.print(table)
    for warning in s.warnings:
        out.print(f"[yellow]note:[/] {escape(warning)}", soft_wrap=True)


def reproduction(r: Reproduction) -> None:
    """Prints a report's numbers beside those that auditing again gave, and each that differs."""
    from ownership.auditing.reproduce import P_TOLERANCE
    from ownership.reports.glossary import format_number
    from ownership.stats import format_p

    table = Table(box=None, padding=(0, 1))
    for name in ("test", "queries", "report", "again", "p", "again", "same"):
        table.add_column(name, justify="left" if name in ("test", "same") else "right")
    for row in r.rows:
        p = "–" if row.pvalue_again is None else format_p(row.pvalue_again)
        session = "all" if row.queries is None else str(row.queries)
        numbers = (format_number(row.value), format_number(row.again), format_p(row.pvalue), p)
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
            f"reproduced: {r.again.verdict.value}, {r.compared} numbers and words the same (scores within "
            f"{r.tolerance:g} relative, p-values within {P_TOLERANCE:g})",
            soft_wrap=True,
        )


def power(found: dict[int, list[Power]], wanted: float) -> None:
    """Prints the power of a claim, by number of public probes."""
    table = Table(box=None, padding=(0, 1))
    for name in ("probes", "test", "theft like", "distance (sd)", "found", "95 % interval", f"members for {wanted:g}"):
        table.add_column(name, justify="left" if name in ("test", "theft like") else "right")
    for n, rows in found.items():
        for p in rows:
            table.add_row(
                str(n),
                p.statistic,
                p.reference.removeprefix("reference_"),
                f"{p.effect_size:.1f}",
                f"{p.power:.2f}",
                f"{p.interval[0]:.2f} to {p.interval[1]:.2f}",
                "> 200" if p.members_needed is None else f"{p.members_needed} a stratum",
            )
    out.print(table)
    out.print(
        "found: chance that a suspect as close to the victim as that reference surrogate is found in the stratum where "
        "that is hardest; distances are in standard deviations of the panel and as uncertain as it is small. "
        "turnmark panel --members trains more of them."
    )
