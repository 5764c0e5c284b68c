"""`turnmark steal`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cli import render
from cli.options import DATA_HELP, Device, Out, Seed, Size

HELP = "Steal an encoder through its answers (direct extraction, the paper's Algorithm 1), counting every query."


def steal(
    victim: Annotated[
        str,
        typer.Argument(
            help="Train folder or encoder file to steal, or the https:// address of an endpoint (token from "
            "TURNMARK_TOKEN).",
            show_default=False,
        ),
    ],
    data: Annotated[str, typer.Argument(help=DATA_HELP, show_default=False)],
    out: Out,
    loss: Annotated[
        str, typer.Option(help="mse, infonce, softnn, wasserstein, supcon, barlow or symmetrized.")
    ] = "mse",
    method: Annotated[
        str, typer.Option(help="direct, recreate-head (the paper's Algorithm 2) or access-head.")
    ] = "direct",
    queries: Annotated[int, typer.Option(help="Images to ask the victim about.")] = 9000,
    arch: Annotated[
        str | None, typer.Option(help="The surrogate's architecture; the victim's if not given.", show_default=False)
    ] = None,
    victim_view: Annotated[
        str, typer.Option(help="What the victim is asked: none (the image), standard (SimCLR view) or rotation.")
    ] = "none",
    surrogate_view: Annotated[
        str, typer.Option(help="What the surrogate sees: same, none, standard or rotation.")
    ] = "same",
    budget: Annotated[
        int | None, typer.Option(help="Queries the victim answers at most; augmented ones cost anew each epoch.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the answers.")] = 100,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 256,
    lr: Annotated[float, typer.Option(help="Adam's learning rate, cosine schedule.")] = 1e-3,
    size: Size = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Steals and writes a folder with the surrogate."""
    from attacks_for_eval.extraction import ExtractionConfig
    from attacks_for_eval.reference import pick_architecture
    from attacks_for_eval.steal import steal_to
    from ownership.errors import TrainingError
    from ownership.images import EncoderLike
    from ownership.remote import RemoteEncoder
    from watermark_training.artefacts import load_trained
    from watermark_training.data import load_data
    from watermark_training.train import pick_device

    images = load_data(data, size=size)
    encoder: EncoderLike
    head = None
    if victim.startswith(("https://", "http://")):
        encoder, known, digest = RemoteEncoder(url=victim, token=os.environ.get("TURNMARK_TOKEN")), None, victim
        if arch is None:
            raise TrainingError("an endpoint does not say its architecture", "name the surrogate's with --arch")
    else:
        loaded = load_trained(Path(victim))
        encoder, known, digest, head = loaded.encoder, loaded.architecture, loaded.sha256, loaded.projection_head
    arch = arch or pick_architecture(encoder, known, images.images)
    if arch is None:
        raise TrainingError("no known architecture has the victim's dimension", "name one with --arch")
    config = ExtractionConfig(
        loss=loss,
        arch=arch,
        queries=queries,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        victim_view=victim_view,  # type: ignore[arg-type]  # checked by ExtractionConfig
        surrogate_view=surrogate_view,  # type: ignore[arg-type]
        seed=seed,
    )
    with render.progress() as progress:
        spent = steal_to(
            out,
            encoder,
            digest,
            images,
            config,
            method=method,
            head=head,
            budget=budget,
            device=pick_device(device),
            progress=progress,
        )
    render.out.print(f"stolen with {spent} queries: {out}/encoder.safetensors, {out}/encoder.onnx")
