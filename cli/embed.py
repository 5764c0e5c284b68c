"""`turnmark embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import inputs, render
from cli.options import (
    BATCH_HELP,
    DATA_HELP,
    EPOCHS_HELP,
    KEYED_FRACTION_HELP,
    KEYED_VIEWS_HELP,
    KEYED_WEIGHT_HELP,
    LR_HELP,
    WATERMARK_HELP,
    WEIGHT_HELP,
    Arch,
    Device,
    Key,
    KeySeed,
    Onnx,
    Out,
    Seed,
    Size,
    choice,
    fraction,
    positive,
)
from cli.train import say_watermark
from watermark_training.choices import WatermarkTask

HELP = (
    "Add a secret watermark to an encoder that is already trained, while its representations stay close to what they "
    "were. A larger --keyed-weight makes the watermark stronger and changes the representations more. "
    "The same command resumes an interrupted run."
)


def embed(
    encoder: Annotated[
        Path, typer.Argument(help="Train folder, or weights of a known architecture.", show_default=False)
    ],
    data: Annotated[str, typer.Argument(help=DATA_HELP, show_default=False)],
    out: Out,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help=EPOCHS_HELP)] = 8,
    watermark: Annotated[WatermarkTask, choice(WatermarkTask, "--watermark", help=WATERMARK_HELP)] = "keyed",
    key: Key = None,
    keyed_weight: Annotated[float, typer.Option("--keyed-weight", callback=positive, help=KEYED_WEIGHT_HELP)] = 0.3,
    keyed_fraction: Annotated[
        float, typer.Option("--keyed-fraction", callback=fraction, help=KEYED_FRACTION_HELP)
    ] = 1.0,
    keyed_views: Annotated[bool, typer.Option("--keyed-views", help=KEYED_VIEWS_HELP)] = False,
    watermark_weight: Annotated[float, typer.Option("--watermark-weight", callback=positive, help=WEIGHT_HELP)] = 0.1,
    batch_size: Annotated[int, typer.Option("--batch-size", min=8, help=BATCH_HELP)] = 64,
    lr: Annotated[float, typer.Option("--lr", callback=positive, help=LR_HELP)] = 5e-4,
    key_seed: KeySeed = None,
    arch: Arch = None,
    size: Size = None,
    onnx: Onnx = True,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Write a train folder with the watermarked encoder."""
    inputs.check_encoder(encoder, "encoder")
    inputs.check_images(data)
    inputs.check_watermark(watermark, key, key_seed)

    from ownership.io.extras import require

    require("onnxscript")  # before anything long
    import torch

    from ownership.keyed.pool import KeyMaterial
    from ownership.watermark import secret_key
    from watermark_training.callbacks import Callbacks
    from watermark_training.data import load_data
    from watermark_training.device import pick_device
    from watermark_training.embed import embed_to
    from watermark_training.loaded_encoder import load_trained

    known = load_trained(encoder, arch)
    with render.progress(render.LOADING):
        images = load_data(data, size=size)
    rotation_key = None if key_seed is None else secret_key(torch.Generator().manual_seed(key_seed))
    material = None if key is None else KeyMaterial.load(key)
    changes = {
        "epochs": epochs,
        "watermark": watermark,
        "keyed_weight": keyed_weight,
        "keyed_fraction": keyed_fraction,
        "keyed_views": keyed_views,
        "watermark_weight": watermark_weight,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
    }
    with render.progress() as progress:
        done = embed_to(
            out,
            known,
            images,
            changes,
            key=rotation_key,
            material=material,
            device=pick_device(device),
            onnx=onnx,
            callbacks=Callbacks(progress=progress, warn=render.warn),
        )
    said = "embedded" if done.created else "already embedded"
    render.line(f"{said}: {render.encoder_files(out, onnx=onnx)}")
    say_watermark(out, watermark, done.key_test, unanchored=key is None)
    if watermark != "keyed":
        render.line(render.SHOW_BASE_CHECKPOINT)
