"""`turnmark train`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from cli import render
from cli.options import DATA_HELP, BadImage, Device, KeySeed, Out, Seed, Size

HELP = (
    "Train an encoder (SimCLR) that carries a secret rotation watermark. The same command resumes an interrupted run."
)


def train(
    data: Annotated[str, typer.Argument(help=DATA_HELP, show_default=False)],
    out: Out,
    arch: Annotated[
        str | None,
        typer.Option(
            help="tiny, small, small_vgg, resnet18, resnet34, resnet50; torchvision:NAME, timm:NAME. "
            "[default: resnet18, or that of --start]",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Encoder to go on from, such as a public checkpoint: train folder, or weights of a known kind.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 200,
    method: Annotated[str, typer.Option(help="simclr, simsiam or barlow.")] = "simclr",
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Turn views by any angle, too: a rotation-invariant panel member; no mark.")
    ] = False,
    watermark: Annotated[
        str, typer.Option(help="secret: a fresh secret key; paper: the public half-turn task; none: plain encoder.")
    ] = "secret",
    watermark_fraction: Annotated[
        float, typer.Option(help="Share of each batch that learns the mark; .5 for few images or few passes.")
    ] = 0.08,
    watermark_weight: Annotated[float, typer.Option(help="Of the mark's loss beside the method's own.")] = 1.0,
    predictor: Annotated[
        str,
        typer.Option(
            help="The rotation predictor: trained (with the encoder, then anew), or frozen as the key drew it."
        ),
    ] = "trained",
    batch_size: Annotated[int, typer.Option(help="Images a step; torchrun's processes share them.")] = 256,
    accumulate: Annotated[int, typer.Option(help="Steps whose gradients make one update.")] = 1,
    lr: Annotated[float, typer.Option(help="Adam's learning rate, cosine schedule.")] = 3e-4,
    temperature: Annotated[float, typer.Option(help="Of the contrastive loss.")] = 0.07,
    min_crop: Annotated[float, typer.Option(help="Smallest share of the area that a crop keeps.")] = 0.08,
    flip: Annotated[bool, typer.Option(help="Mirror views at random.")] = True,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    compile_: Annotated[
        bool, typer.Option("--compile", help="Through torch.compile: faster after a minute; needs a C++ compiler.")
    ] = False,
    key_seed: KeySeed = None,
    size: Size = None,
    on_bad_image: BadImage = "stop",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Trains and writes a train folder."""
    import torch

    from ownership.io.progress import silent
    from ownership.watermark import secret_key
    from watermark_training.config import TrainConfig
    from watermark_training.data import load_data
    from watermark_training.device import pick_device
    from watermark_training.distributed import processes, rank
    from watermark_training.train_folder import load_trained, train_to, trainable

    known = None if start is None else load_trained(start, arch)
    encoder, found = (None, None) if known is None else trainable(known)
    config = TrainConfig(
        arch=arch or found or "resnet18",
        method=method,  # type: ignore[arg-type]  # checked by TrainConfig
        rotate=rotate,
        epochs=epochs,
        batch_size=batch_size,
        accumulate=accumulate,
        lr=lr,
        temperature=temperature,
        min_crop=min_crop,
        flip=flip,
        watermark=watermark,  # type: ignore[arg-type]  # checked by TrainConfig
        watermark_fraction=watermark_fraction,
        watermark_weight=watermark_weight,
        predictor=predictor,  # type: ignore[arg-type]  # checked by TrainConfig
        seed=seed,
        precision=precision,  # type: ignore[arg-type]  # checked by TrainConfig
        compile=compile_,
    )
    key = None if key_seed is None else secret_key(torch.Generator().manual_seed(key_seed))
    images = load_data(data, size=size, on_bad_image=on_bad_image)  # type: ignore[arg-type]  # checked there
    render.skipped(images.skipped)
    with processes(pick_device(device)) as here:
        first = rank() == 0
        with render.progress() if first else nullcontext(silent) as progress:
            trained = train_to(
                out,
                images,
                config,
                key=key,
                start=encoder,
                base_checkpoint=None if known is None else known.sha256,
                device=here,
                progress=progress,
                warn=render.warn,
            )
    if not first:
        return
    render.out.print(f"{'trained' if trained else 'already trained'}: {out}/encoder.safetensors, {out}/encoder.onnx")
    if watermark != "none":
        render.out.print(f"keep {out}/predictor.safetensors secret: it holds the watermark's key")
    if watermark != "none" and known is not None:
        render.out.print(render.SHOW_ANCESTOR)
