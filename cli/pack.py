"""`turnmark pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import render
from cli.options import BadImage, Size

HELP = "Decode a folder of pictures, or WebDataset shards, once into one .npy that training maps into memory."


def pack(
    pictures: Annotated[Path, typer.Argument(help="Folder of pictures or of .tar shards.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="File to write, .npy.", show_default=False)],
    size: Size = None,
    on_bad_image: BadImage = "stop",
) -> None:
    """Writes the file."""
    from ownership.errors import DataError
    from watermark_training.pictures import pack as write

    if out.suffix != ".npy":
        raise DataError(f"{out} is no .npy", "call it NAME.npy")
    with render.progress() as progress:
        count, skipped = write(pictures, out, size, on_bad_image=on_bad_image, progress=progress)  # type: ignore[arg-type]  # checked there
    render.skipped(skipped)
    render.out.print(f"{count} images: {out}", soft_wrap=True)
