"""`turnmark panel`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import render
from cli.options import DATA_HELP, BadImage, Device, Out, Size

HELP = (
    "Train a panel for a claim: twenty encoders like the victim, without it: five plain, five with foreign marks, "
    "five on rotated views, five taught by others to answer alike however an image is turned; some on your own images; "
    "with --base-checkpoint also fine-tunes of what it went on from. The same "
    "command resumes, and with more --members adds to what is there. claim build --panel OUT takes them all."
)


def panel(
    victim: Annotated[Path, typer.Argument(help="Train folder of the victim.", show_default=False)],
    private: Annotated[str, typer.Option(help="Images the victim was trained on. " + DATA_HELP, show_default=False)],
    others: Annotated[str, typer.Option(help="Other images of the same kind, at least as many.", show_default=False)],
    out: Out,
    members: Annotated[
        int, typer.Option(min=5, help="Of each kind; turnmark claim power says how many a claim needs.")
    ] = 5,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Passes of those that begin with fresh weights; the victim's if not given.", show_default=False
        ),
    ] = None,
    base_checkpoint: Annotated[
        Path | None,
        typer.Option(help="The public model that the victim went on from, if it did.", show_default=False),
    ] = None,
    rotation_invariant: Annotated[
        bool, typer.Option(help="Also those on rotated views and the students, to find who trains the mark away.")
    ] = True,
    size: Size = None,
    on_bad_image: BadImage = "stop",
    device: Device = "auto",
) -> None:
    """Trains the panel's members."""
    from attacks_for_eval.claims.distilled import train_distilled
    from attacks_for_eval.claims.panel import like_the_victim, panel_specs, train_panel
    from ownership.errors import TrainingError
    from watermark_training.data import load_data
    from watermark_training.device import pick_device
    from watermark_training.train_folder import load_trained

    config = load_trained(victim).config
    training = like_the_victim(config)
    before = None if base_checkpoint is None else load_trained(base_checkpoint, training.arch)
    if before is not None and before.sha256 != config.get("base_checkpoint"):
        raise TrainingError(f"the victim did not go on from {base_checkpoint}", "give what --start was, its very file")
    if epochs is None and "base_checkpoint" in config:
        render.warn(
            "the victim went on from another encoder, independent encoders begin with fresh weights: its "
            f"{training.epochs} passes may be too few for them (--epochs)"
        )
    if before is None and "base_checkpoint" in config:
        render.warn("its claim also needs kin of the victim: --base-checkpoint MODEL trains them")
    inside, outside = (load_data(x, size=size, on_bad_image=on_bad_image) for x in (private, others))  # type: ignore[arg-type]
    render.skipped([*inside.skipped, *outside.skipped])
    wanted = panel_specs(members, rotation_invariant=rotation_invariant, from_checkpoint=before is not None)
    with render.progress(counted=False) as progress:
        folders = train_panel(
            training,
            inside,
            outside,
            out,
            members=[m for m in wanted if not m.teacher],
            epochs=epochs,
            base_checkpoint=before,
            device=pick_device(device),
            progress=progress,
            warn=render.warn,
        )
        folders += train_distilled(
            training,
            outside,
            len(inside),
            out,
            members=[m for m in wanted if m.teacher],
            epochs=epochs,
            device=pick_device(device),
            progress=progress,
        )
    render.out.print(f"{len(folders)} panel members: {out}", markup=False, soft_wrap=True)
    if base_checkpoint is not None:
        line = f"show the claim the model itself, too: claim build --panel {out} --panel sibling:{base_checkpoint}"
        render.out.print(line, markup=False, soft_wrap=True)
