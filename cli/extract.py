"""`turnmark attack extract`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from attacks_for_eval.choices import METHODS, OWN_ENCODER, Loss, SurrogateView, View, check_method, check_temperature
from cli import inputs, render
from cli.options import (
    BATCH_HELP,
    BUDGET_HELP,
    DATA_HELP,
    EPOCHS_HELP,
    LOSS_HELP,
    LR_HELP,
    N_QUERIES_HELP,
    TEMPERATURE_HELP,
    Device,
    Method,
    Onnx,
    Out,
    OutputKind,
    Seed,
    Size,
    SurrogateArch,
    choice,
    positive,
)
from cli.suspects import AllowHttp
from ownership.suspects.endpoint.address import host_of

HELP = (
    "Train a surrogate of an encoder from its responses to queries (an extraction attack; the paper's Algorithm 1), "
    "and count every query. Loss, views and repeats default to the method's own; temperature, batch size, optimizer "
    "and learning rate to those of the released code for the loss. Responses are kept until the run is finished, so "
    "that an interrupted run pays for no query twice."
)


def extract(
    victim: Annotated[
        str,
        typer.Argument(
            help="Train folder or encoder file, or the https:// address of an endpoint (token from TURNMARK_TOKEN).",
            show_default=False,
        ),
    ],
    data: Annotated[str, typer.Argument(help=DATA_HELP, show_default=False)],
    out: Out,
    method: Method = "direct",
    loss: Annotated[Loss | None, choice(Loss, "--loss", help=LOSS_HELP)] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", callback=positive, help=TEMPERATURE_HELP, show_default=False)
    ] = None,
    output_kind: OutputKind = "representations",
    task: Annotated[
        str | None,
        typer.Option(
            help=(
                "Labeled images: the victim serves a linear layer fitted to them. For --output-kind labels, "
                "posteriors or logits from an encoder."
            ),
            show_default=False,
        ),
    ] = None,
    n_queries: Annotated[int, typer.Option("--n-queries", min=8, help=N_QUERIES_HELP)] = 9000,
    surrogate_arch: SurrogateArch = None,
    victim_view: Annotated[
        View | None,
        choice(
            View,
            "--victim-view",
            help=(
                "Augmentation of the images that the victim is queried with. none: the image itself; standard: a "
                "SimCLR view."
            ),
        ),
    ] = None,
    surrogate_view: Annotated[
        SurrogateView | None,
        choice(
            SurrogateView,
            "--surrogate-view",
            help="Augmentation of the images that the surrogate sees. same: the pixels of the query.",
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(min=1, help="How often each query is repeated, to average noisy responses.", show_default=False),
    ] = None,
    own_encoder: Annotated[
        Path | None,
        typer.Option(
            "--own-encoder",
            help="Train folder or file of an encoder that the attacker trained without the victim, for the methods "
            f"{', '.join(sorted(OWN_ENCODER))}.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[int | None, typer.Option("--budget", min=1, help=BUDGET_HELP, show_default=False)] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help=EPOCHS_HELP)] = 100,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=8, help=BATCH_HELP, show_default=False)] = None,
    lr: Annotated[float | None, typer.Option("--lr", callback=positive, help=LR_HELP, show_default=False)] = None,
    size: Size = None,
    onnx: Onnx = True,
    seed: Seed = 0,
    device: Device = "auto",
    allow_http: AllowHttp = False,
) -> None:
    """Extract a surrogate and write its folder."""
    optional = {
        "loss": loss,
        "temperature": temperature,
        "victim_view": victim_view,
        "surrogate_view": surrogate_view,
        "repeats": repeats,
    }
    given: dict[str, Any] = {name: value for name, value in optional.items() if value is not None}
    check_method(method, given)
    if (method in OWN_ENCODER) is (own_encoder is None):
        raise typer.BadParameter(
            f"{method} needs an encoder of the attacker's own: --own-encoder"
            if own_encoder is None
            else f"{method} uses no --own-encoder: leave it out"
        )
    if own_encoder is not None:
        inputs.check_encoder(own_encoder, "--own-encoder")
    check_temperature(given.get("loss") or METHODS[method].get("loss", "mse"), temperature)
    remote = inputs.is_address(victim)
    if remote:
        host_of(victim, allow_http=allow_http)
        if surrogate_arch is None:
            raise typer.BadParameter(
                "an endpoint does not state its architecture: choose the surrogate's, --surrogate-arch"
            )
    else:
        inputs.check_encoder(Path(victim), "victim")
        if allow_http:
            raise typer.BadParameter("--allow-http is for the address of an endpoint, not for a file")
    inputs.check_images(data)
    if task is not None:
        inputs.check_images(task, what="--task")

    from ownership.io.extras import require

    require("onnxscript")  # before anything long
    from attacks_for_eval.claims.references import pick_architecture
    from attacks_for_eval.extraction.config import ExtractionConfig
    from attacks_for_eval.extraction.run import Victim, classifier_victim, extract_to
    from ownership.errors import TrainingError
    from ownership.suspects.endpoint.client import RemoteEncoder
    from watermark_training.data import load_data
    from watermark_training.device import pick_device
    from watermark_training.loaded_encoder import load_trained

    with render.progress(render.LOADING):
        images = load_data(data, size=size)
    arch = surrogate_arch
    if remote:
        token = os.environ.get("TURNMARK_TOKEN") or None
        target = Victim(encoder=RemoteEncoder(url=victim, token=token, allow_http=allow_http), name=victim)
    else:
        loaded = load_trained(Path(victim))
        target = Victim.of(loaded)
        arch = arch or pick_architecture(loaded.encoder, loaded.architecture, images.images)
    if arch is None:
        raise TrainingError(
            "no built-in architecture has the victim's dimension", "choose the surrogate's with --surrogate-arch"
        )
    # an endpoint that fails costs one batch at most
    target = replace(target, output_kind=output_kind, budget=budget, batch_size=64 if remote else 256)
    if task is not None:
        target = classifier_victim(target, load_data(task, size=size))
    config = ExtractionConfig(
        arch=arch, queries=n_queries, epochs=epochs, batch_size=batch_size, lr=lr, seed=seed, **given
    )
    own = None if own_encoder is None else load_trained(own_encoder)
    with render.progress() as progress:
        made = extract_to(
            out,
            target,
            images,
            config,
            method=method,
            own=own,
            onnx=onnx,
            device=pick_device(device),
            progress=progress,
        )
    render.line(
        f"extracted with {made.queries} queries of {made.unique_images} different images: "
        f"{render.encoder_files(out, onnx=onnx)}"
    )
