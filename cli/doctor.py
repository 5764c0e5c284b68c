"""`turnmark doctor`."""

from __future__ import annotations

import typer
from rich.table import Table

from cli import render

HELP = (
    "Show which layers of the sandbox this machine has, and which formats are refused without those it lacks. Exit "
    "code 4: formats that hold code (.pt2, TorchScript) are refused."
)


def doctor() -> None:
    """Start a process in the sandbox and print its layers."""
    from ownership.suspects.sandbox.check import EXPLAINED, layers_here
    from ownership.suspects.sandbox.layers import STRICT

    on = layers_here()
    table = Table("layer", "here", "what it stops")
    for name, what in EXPLAINED.items():
        table.add_row(name, on.get(name, "[red]missing[/]"), what)
    render.out.print(table)
    missing = [name for name in STRICT if name not in on]
    if missing:
        render.line(f"missing: {', '.join(missing)}; .pt2 and TorchScript are refused, other formats are opened")
        raise typer.Exit(4)
    render.line("every format can be opened here")
