"""`turnmark pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import inputs, render
from cli.options import BadImage, OutFile, Size

HELP = (
    "Decode a folder of pictures, or WebDataset shards, once into one .npy file, which training then maps into memory."
)


def pack(
    pictures: Annotated[Path, typer.Argument(help="Folder of pictures or of .tar shards.", show_default=False)],
    out_file: OutFile,
    size: Size = None,
    on_bad_image: BadImage = "stop",
) -> None:
    """Write the file."""
    if out_file.suffix != ".npy":
        raise typer.BadParameter(f"--out-file {out_file}: the name must end in .npy")
    inputs.check_images(str(pictures), least=1)

    from watermark_training.image_files import pack as write

    with render.progress() as progress:
        count, skipped = write(pictures, out_file, size, on_bad_image=on_bad_image, progress=progress)
    render.skipped(skipped)
    render.line(f"{count} images: {out_file}")
