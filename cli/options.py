"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATA_HELP = (
    "Images: a folder of pictures or .tar shards, an .npz with uint8 x, an .npy of turnmark pack, "
    "or a name (digits, fashion-mnist, cifar10, any torchvision set), "
    "with a slice such as cifar10:train[:10000]."
)

Out = Annotated[Path, typer.Option("--out", help="Folder to write into.", show_default=False)]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Everything random follows from it.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Size = Annotated[
    int | None, typer.Option("--size", min=8, help="Resize images to SIZE x SIZE pixels.", show_default=False)
]
BadImage = Annotated[
    str, typer.Option("--on-bad-image", help="stop, or skip: leave out files that are no readable images.")
]
Arch = Annotated[
    str | None,
    typer.Option("--arch", help="Architecture of bare weights (tiny, small, resnet18, ...).", show_default=False),
]
KeySeed = Annotated[
    int | None,
    typer.Option(
        "--key-seed", help="Draw the secret key from this number instead of the system's randomness; keep it secret."
    ),
]
