"""`turnmark show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import render

HELP = "Say what a train folder holds: encoder, training, mark, how training ended. Nothing of the key is shown."


def show(
    folder: Annotated[Path, typer.Argument(help="Train folder, or any encoder file.", show_default=False)],
) -> None:
    """Prints a train folder in words."""
    from rich.markup import escape

    from watermark_training.describe import describe

    for line in describe(folder):
        render.out.print(escape(line), soft_wrap=True)
