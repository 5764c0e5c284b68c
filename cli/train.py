"""`turnmark train`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    TEMPERATURE_HELP,
    WATERMARK_HELP,
    WEIGHT_HELP,
    Arch,
    BadImage,
    Device,
    InitFrom,
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
from watermark_training.choices import Objective, Precision, PredictorTraining, WatermarkTask

if TYPE_CHECKING:
    from ownership.keyed.test import KeyTestResult

HELP = (
    "Train an encoder (SimCLR, SimSiam or Barlow Twins) that carries a secret watermark. The architecture is "
    "resnet18, or that of --init-from, unless --arch is given. The same command resumes an interrupted run."
)


def train(
    data: Annotated[str, typer.Argument(help=DATA_HELP, show_default=False)],
    out: Out,
    arch: Arch = None,
    init_from: InitFrom = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help=EPOCHS_HELP)] = 200,
    objective: Annotated[Objective, choice(Objective, "--objective", help="Self-supervised objective.")] = "simclr",
    rotate: Annotated[
        bool,
        typer.Option(
            "--rotate",
            help=(
                "Also rotate views by any angle: a rotation-invariant encoder, which can carry no rotation watermark."
            ),
        ),
    ] = False,
    watermark: Annotated[
        WatermarkTask,
        choice(WatermarkTask, "--watermark", help=WATERMARK_HELP),
    ] = "keyed",
    key: Key = None,
    keyed_weight: Annotated[float, typer.Option("--keyed-weight", callback=positive, help=KEYED_WEIGHT_HELP)] = 0.1,
    keyed_fraction: Annotated[
        float, typer.Option("--keyed-fraction", callback=fraction, help=KEYED_FRACTION_HELP)
    ] = 0.25,
    keyed_views: Annotated[bool, typer.Option("--keyed-views", help=KEYED_VIEWS_HELP)] = False,
    watermark_fraction: Annotated[
        float,
        typer.Option(
            "--watermark-fraction",
            callback=fraction,
            help="Fraction of each batch that trains the rotation watermark; 0.5 for few images or few epochs.",
        ),
    ] = 0.08,
    watermark_weight: Annotated[float, typer.Option("--watermark-weight", callback=positive, help=WEIGHT_HELP)] = 1.0,
    predictor: Annotated[
        PredictorTraining,
        choice(
            PredictorTraining,
            "--predictor",
            help="Rotation predictor. trained: with the encoder, then refitted; frozen: as the key draws it.",
        ),
    ] = "trained",
    batch_size: Annotated[int, typer.Option("--batch-size", min=8, help=BATCH_HELP)] = 256,
    accumulate: Annotated[
        int, typer.Option("--accumulate", min=1, help="Steps whose gradients are summed for one update.")
    ] = 1,
    lr: Annotated[float, typer.Option("--lr", callback=positive, help=LR_HELP)] = 3e-4,
    temperature: Annotated[float, typer.Option("--temperature", callback=positive, help=TEMPERATURE_HELP)] = 0.07,
    min_crop: Annotated[
        float,
        typer.Option("--min-crop", callback=fraction, help="Smallest fraction of an image's area that a crop keeps."),
    ] = 0.08,
    flip: Annotated[bool, typer.Option(help="Mirror views at random.")] = True,
    precision: Annotated[
        Precision,
        choice(Precision, "--precision", help="auto: bfloat16 where the hardware computes faster in it."),
    ] = "auto",
    compile_: Annotated[
        bool,
        typer.Option("--compile", help="Use torch.compile: faster after about a minute. Needs a C++ compiler."),
    ] = False,
    key_seed: KeySeed = None,
    size: Size = None,
    on_bad_image: BadImage = "stop",
    onnx: Onnx = True,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Train and write a train folder."""
    if rotate and watermark != "none":
        raise typer.BadParameter("--rotate erases a rotation watermark: add --watermark none")
    inputs.check_images(data)
    inputs.check_watermark(watermark, key, key_seed)
    if init_from is not None:
        inputs.check_encoder(init_from, "--init-from")

    from ownership.io.extras import require

    require("onnxscript")  # before anything long
    import torch

    from ownership.io.progress import silent
    from ownership.keyed.pool import KeyMaterial
    from ownership.watermark import secret_key
    from watermark_training.callbacks import Callbacks
    from watermark_training.config import TrainConfig
    from watermark_training.data import load_data
    from watermark_training.device import pick_device
    from watermark_training.distributed import processes, rank
    from watermark_training.loaded_encoder import load_trained, trainable
    from watermark_training.train_folder import train_to

    known = None if init_from is None else load_trained(init_from, arch)
    found = None if known is None else trainable(known)[1]
    config = TrainConfig(
        arch=arch or found or "resnet18",
        method=objective,
        rotate=rotate,
        epochs=epochs,
        batch_size=batch_size,
        accumulate=accumulate,
        lr=lr,
        temperature=temperature,
        min_crop=min_crop,
        flip=flip,
        watermark=watermark,
        keyed_weight=keyed_weight,
        keyed_fraction=keyed_fraction,
        keyed_views=keyed_views,
        watermark_fraction=watermark_fraction,
        watermark_weight=watermark_weight,
        predictor=predictor,
        seed=seed,
        precision=precision,
        compile=compile_,
    )
    rotation_key = None if key_seed is None else secret_key(torch.Generator().manual_seed(key_seed))
    material = None if key is None else KeyMaterial.load(key)
    with render.progress(render.LOADING):
        images = load_data(data, size=size, on_bad_image=on_bad_image)
    render.skipped(images.skipped)
    with processes(pick_device(device)) as here:
        first = rank() == 0
        with render.progress() if first else nullcontext(silent) as progress:
            trained = train_to(
                out,
                images,
                config,
                key=rotation_key,
                material=material,
                start=known,
                onnx=onnx,
                device=here,
                callbacks=Callbacks(progress=progress, warn=render.warn),
            )
    if not first:
        return
    done = "trained" if trained.created else "already trained"
    render.line(f"{done}: {render.encoder_files(out, onnx=onnx)}")
    say_watermark(out, watermark, trained.key_test, unanchored=key is None)
    if watermark != "none" and known is not None:
        render.line(render.SHOW_BASE_CHECKPOINT)


def say_watermark(out: Path, watermark: str, found: KeyTestResult | None, *, unanchored: bool) -> None:
    """Print where the secret of a watermark lies, and how well the keyed one is found in the encoder itself."""
    if watermark in ("secret", "paper"):
        render.line(f"keep {out}/predictor.safetensors secret: it holds the watermark's key")
    if watermark != "keyed":
        return
    if found is not None:
        render.line(f"the key test on the encoder itself: p = {found.pvalue:.2g}, among {found.decoys:,} other keys")
    render.line(f"keep {out}/key.json secret: it holds the watermark's key")
    if unanchored:
        render.line(
            "the key is new and not anchored in time, its probes are images that were held out: that it was chosen "
            "after a suspect was known is not excluded (before training: turnmark key new --timestamp URL)"
        )
