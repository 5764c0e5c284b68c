"""`turnmark embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import render
from cli.options import DATA_HELP, Arch, Device, KeySeed, Out, Seed, Size

HELP = (
    "Add a secret rotation watermark to an encoder that is trained already, so that it goes on answering as before. "
    "The same command resumes an interrupted run."
)


def embed(
    model: Annotated[
        Path, typer.Argument(help="Train folder, or weights of a known architecture.", show_default=False)
    ],
    data: Annotated[str, typer.Argument(help=DATA_HELP, show_default=False)],
    out: Out,
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 8,
    watermark_weight: Annotated[
        float, typer.Option(help="Weight of the mark beside answering as before: more is read better, and moves more.")
    ] = 0.1,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 64,
    lr: Annotated[float, typer.Option(help="Adam's learning rate, cosine schedule.")] = 5e-4,
    key_seed: KeySeed = None,
    arch: Arch = None,
    size: Size = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Writes a train folder with the marked encoder."""
    import torch

    from ownership.watermark import secret_key
    from watermark_training.data import load_data
    from watermark_training.device import pick_device
    from watermark_training.embed import embed_to
    from watermark_training.train_folder import load_trained

    known = load_trained(model, arch)
    key = None if key_seed is None else secret_key(torch.Generator().manual_seed(key_seed))
    with render.progress() as progress:
        done = embed_to(
            out,
            known,
            load_data(data, size=size),
            {"epochs": epochs, "watermark_weight": watermark_weight, "batch_size": batch_size, "lr": lr, "seed": seed},
            key=key,
            device=pick_device(device),
            progress=progress,
            warn=render.warn,
        )
    render.out.print(f"{'embedded' if done else 'already embedded'}: {out}/encoder.safetensors, {out}/encoder.onnx")
    render.out.print(f"keep {out}/predictor.safetensors secret: it holds the watermark's key")
    render.out.print(render.SHOW_ANCESTOR)
