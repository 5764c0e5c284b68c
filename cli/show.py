"""`turnmark show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import inputs, render

HELP = "Describe a train folder: encoder, training, watermark, how training ended. The secret key is not shown."


def show(
    folder: Annotated[Path, typer.Argument(help="Train folder or encoder file.", show_default=False)],
) -> None:
    """Print a description of a train folder."""
    inputs.check_encoder(folder, "folder")

    from watermark_training.describe import describe

    for line in describe(folder):
        render.line(line)
