"""`turnmark steal`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

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
    method: Annotated[
        str,
        typer.Option(
            help="direct, recreate-head (the paper's Algorithm 2), access-head, stolen-encoder, cont-steal, "
            "rotated-queries, rotation-invariant, turned or averaging."
        ),
    ] = "direct",
    loss: Annotated[
        str | None,
        typer.Option(
            help="mse, unit_l2, infonce, softnn, wasserstein, supcon, barlow or symmetrized; mse, or the method's own, "
            "if not given.",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Of infonce, softnn and supcon; the loss's own if not given.", show_default=False),
    ] = None,
    output_kind: Annotated[
        str, typer.Option(help="What the victim gives out: representations, labels, posteriors or logits.")
    ] = "representations",
    task: Annotated[
        str | None,
        typer.Option(
            help="Labelled images: the victim serves a linear layer fitted to them (for --output-kind labels, posteriors "
            "or logits from an encoder).",
            show_default=False,
        ),
    ] = None,
    queries: Annotated[int, typer.Option(help="Images to ask the victim about.")] = 9000,
    arch: Annotated[
        str | None, typer.Option(help="The surrogate's architecture; the victim's if not given.", show_default=False)
    ] = None,
    victim_view: Annotated[
        str | None,
        typer.Option(
            help="What the victim is asked: none (the image), standard (SimCLR view), rotation or colour; none, or the "
            "method's own, if not given.",
            show_default=False,
        ),
    ] = None,
    surrogate_view: Annotated[
        str | None,
        typer.Option(
            help="What the surrogate sees: same, none, standard, rotation or colour; same, or the method's own, if not "
            "given.",
            show_default=False,
        ),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Times each query is asked, to average noisy answers.", show_default=False)
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="Queries the victim answers at most; augmented ones cost anew each epoch.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the answers.")] = 100,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Images a step; the released code's for the loss if not given.", show_default=False),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Adam's learning rate; the released code's optimiser and rate for the loss if not given. Cosine "
            "schedule.",
            show_default=False,
        ),
    ] = None,
    size: Size = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Steals and writes a folder with the surrogate."""
    from attacks_for_eval.claims.references import pick_architecture
    from attacks_for_eval.extraction.config import ExtractionConfig, check_method
    from attacks_for_eval.extraction.run import extract_to, serve_task
    from ownership.encoders.images import EncoderLike
    from ownership.errors import TrainingError
    from ownership.io.files import read_json
    from ownership.suspects.endpoint.client import RemoteEncoder
    from watermark_training.data import load_data
    from watermark_training.device import pick_device
    from watermark_training.train_folder import CONFIG, load_trained

    optional = {
        "loss": loss,
        "temperature": temperature,
        "victim_view": victim_view,
        "surrogate_view": surrogate_view,
        "repeats": repeats,
    }
    given: dict[str, Any] = {name: value for name, value in optional.items() if value is not None}
    check_method(method, given)
    images = load_data(data, size=size)
    encoder: EncoderLike
    head, remote = None, victim.startswith(("https://", "http://"))
    if remote:
        encoder, known, digest = RemoteEncoder(url=victim, token=os.environ.get("TURNMARK_TOKEN")), None, victim
        if arch is None:
            raise TrainingError("an endpoint does not say its architecture", "name the surrogate's with --arch")
    else:
        loaded = load_trained(Path(victim))
        encoder, known, digest, head = loaded.encoder, loaded.architecture, loaded.sha256, loaded.projection_head
    arch = arch or pick_architecture(encoder, known, images.images)
    if arch is None:
        raise TrainingError("no known architecture has the victim's dimension", "name one with --arch")
    if task is not None:
        encoder, digest = serve_task(encoder, digest, load_data(task, size=size), output_kind)
    config = ExtractionConfig(
        arch=arch, queries=queries, epochs=epochs, batch_size=batch_size, lr=lr, seed=seed, **given
    )
    with render.progress() as progress:
        spent = extract_to(
            out,
            encoder,
            digest,
            images,
            config,
            method=method,
            output_kind=output_kind,
            head=head,
            budget=budget,
            batch_size=64 if remote else 256,  # an endpoint that dies half-way costs one batch
            device=pick_device(device),
            progress=progress,
        )
    unique = read_json(out / CONFIG, TrainingError, "theft").get("unique_images", 0)
    render.out.print(f"stolen with {spent} queries about {unique} different images: {out}/encoder.safetensors, .onnx")
