"""`turnmark train`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import render
from cli.options import DATA_HELP, Device, KeySeed, Out, Seed, Size

HELP = (
    "Train an encoder (SimCLR) that carries a secret rotation watermark. The same command resumes an interrupted run."
)


def train(
    data: Annotated[str, typer.Argument(help=DATA_HELP, show_default=False)],
    out: Out,
    arch: Annotated[str, typer.Option(help="tiny, small, small_vgg, resnet18, resnet34 or resnet50.")] = "resnet18",
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 200,
    method: Annotated[str, typer.Option(help="simclr, simsiam or barlow.")] = "simclr",
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Turn views by any angle, too: a rotation-invariant panel member; no mark.")
    ] = False,
    mark: Annotated[
        str, typer.Option(help="secret: a fresh secret key; paper: the public half-turn task; none: plain encoder.")
    ] = "secret",
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 256,
    lr: Annotated[float, typer.Option(help="Adam's learning rate, cosine schedule.")] = 3e-4,
    temperature: Annotated[float, typer.Option(help="Of the contrastive loss.")] = 0.07,
    min_crop: Annotated[float, typer.Option(help="Smallest share of the area that a crop keeps.")] = 0.08,
    flip: Annotated[bool, typer.Option(help="Mirror views at random.")] = True,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    key_seed: KeySeed = None,
    size: Size = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Trains and writes a train folder."""
    import torch

    from ownership.watermark import secret_key
    from watermark_training.artefacts import train_to
    from watermark_training.config import TrainConfig
    from watermark_training.data import load_data
    from watermark_training.device import pick_device

    config = TrainConfig(
        arch=arch,
        method=method,  # type: ignore[arg-type]  # checked by TrainConfig
        rotate=rotate,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        temperature=temperature,
        min_crop=min_crop,
        flip=flip,
        mark=mark,  # type: ignore[arg-type]  # checked by TrainConfig
        seed=seed,
        precision=precision,  # type: ignore[arg-type]  # checked by TrainConfig
    )
    key = None if key_seed is None else secret_key(torch.Generator().manual_seed(key_seed))
    images = load_data(data, size=size)
    with render.progress() as progress:
        trained = train_to(out, images, config, key=key, device=pick_device(device), progress=progress)
    render.out.print(f"{'trained' if trained else 'already trained'}: {out}/encoder.safetensors, {out}/encoder.onnx")
    if mark != "none":
        render.out.print(f"keep {out}/predictor.safetensors secret: it holds the watermark's key")
