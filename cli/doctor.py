"""`turnmark doctor`."""

from __future__ import annotations

import typer
from rich.table import Table

from cli import render

HELP = (
    "Show which layers of the sandbox this machine has, and what runs without those it lacks. Ends with 4 if formats "
    "that hold code (.pt2, TorchScript) would be refused."
)


def doctor() -> None:
    """Puts a process in the sandbox and shows what it put on."""
    from ownership.suspects.sandbox.check import EXPLAINED, layers_here
    from ownership.suspects.sandbox.layers import STRICT

    on = layers_here()
    table = Table("layer", "here", "what it stops")
    for name, what in EXPLAINED.items():
        table.add_row(name, on.get(name, "[red]missing[/]"), what)
    render.out.print(table)
    missing = [name for name in STRICT if name not in on]
    if missing:
        render.out.print(f"missing: {', '.join(missing)}; .pt2 and TorchScript are refused, other formats run without")
        raise typer.Exit(4)
    render.out.print("every kind of suspect can be opened here")
