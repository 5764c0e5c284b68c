"""`turnmark panel`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import inputs, render
from cli.options import EPOCHS_HELP, BadImage, Device, InitFrom, Others, Out, Private, Size

HELP = (
    "Train a reference panel for a claim: independent encoders like the victim, without its watermark. Twenty by "
    "default: five plain, five with other watermarks, five trained on rotated views, five distilled to be "
    "rotation-invariant; some on your private images. With --init-from also sibling fine-tunes of the victim's base "
    "checkpoint. Epochs default to the victim's. The same command resumes, and with more --members adds to what is "
    "there. turnmark claim build --panel OUT takes all of them."
)


def panel(
    victim: Annotated[Path, typer.Argument(help="Train folder of the victim.", show_default=False)],
    private: Private,
    others: Others,
    out: Out,
    members: Annotated[
        int,
        typer.Option(min=5, help="Encoders in each stratum; turnmark claim power tells how many a claim needs."),
    ] = 5,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help=EPOCHS_HELP, show_default=False)] = None,
    init_from: InitFrom = None,
    rotation_invariant: Annotated[
        bool,
        typer.Option(
            help=(
                "Include the encoders trained on rotated views and the distilled ones. They are needed to detect "
                "copies from which the watermark was trained away."
            )
        ),
    ] = True,
    size: Size = None,
    on_bad_image: BadImage = "stop",
    device: Device = "auto",
) -> None:
    """Train the members of the panel."""
    inputs.check_encoder(victim, "victim")
    inputs.check_images(private, what="--private")
    inputs.check_images(others, what="--others")
    if init_from is not None:
        inputs.check_encoder(init_from, "--init-from")

    from attacks_for_eval.claims.panel import train_panel
    from attacks_for_eval.claims.panel_spec import PanelTraining, panel_specs, victim_training
    from ownership.errors import TrainingError
    from watermark_training.callbacks import Callbacks
    from watermark_training.data import load_data
    from watermark_training.device import pick_device
    from watermark_training.loaded_encoder import load_trained

    config = load_trained(victim).config
    training = victim_training(config)
    before = None if init_from is None else load_trained(init_from, training.arch)
    if before is not None and before.sha256 != config.get("base_checkpoint"):
        raise TrainingError(
            f"the victim's training did not start from {init_from}",
            "give the very file that train --init-from was given",
        )
    if epochs is None and "base_checkpoint" in config:
        render.warn(
            "the victim's training started from another encoder, but the panel's from fresh weights: "
            f"{training.epochs} epochs may be too few for them (--epochs)"
        )
    if before is None and "base_checkpoint" in config:
        render.warn("the claim also needs sibling fine-tunes of the base checkpoint: --init-from MODEL trains them")
    with render.progress(render.LOADING):
        inside, outside = (load_data(x, size=size, on_bad_image=on_bad_image) for x in (private, others))
    render.skipped([*inside.skipped, *outside.skipped])
    wanted = panel_specs(members, rotation_invariant=rotation_invariant, from_checkpoint=before is not None)
    with render.progress() as progress:
        folders = train_panel(
            out,
            wanted,
            PanelTraining(
                config=training,
                private=inside,
                others=outside,
                epochs=epochs,
                base_checkpoint=before,
                device=pick_device(device),
            ),
            callbacks=Callbacks(progress=progress, warn=render.warn),
        )
    render.line(f"{len(folders)} panel members: {out}")
    if init_from is not None:
        render.line(f"add the base checkpoint itself, too: claim build --panel {out} --panel sibling:{init_from}")
