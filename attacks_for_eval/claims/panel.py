"""Training of a reference panel, each member into a train folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from attacks_for_eval.claims.distilled import train_distilled
from attacks_for_eval.claims.panel_spec import PanelSpec, PanelTraining, draw_images
from ownership.errors import TrainingError
from ownership.io.progress import part
from watermark_training.callbacks import Callbacks
from watermark_training.loaded_encoder import CONFIG, trainable
from watermark_training.train_folder import train_to
from watermark_training.unfinished import unfinished


def train_folders_in(path: Path) -> list[Path]:
    """Return the train folders in a folder that holds nothing else, or the path itself."""
    if not path.is_dir() or (path / CONFIG).exists():
        return [path]
    inside = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    return inside if inside and all((p / CONFIG).is_file() for p in inside) else [path]


def train_panel(
    out: Path | str,
    members: Sequence[PanelSpec],
    training: PanelTraining,
    *,
    callbacks: Callbacks = Callbacks(),  # noqa: B008  (frozen)
) -> list[Path]:
    """Train the members of a panel, each into a train folder; finished ones are kept.

    Args:
        out: where the folders are made.
        members: which encoders; the seed of each follows from its name, so that a panel can grow. Teachers come before
            the controls that are distilled from them.
        training: images, configuration, base checkpoint.
        callbacks: progress, advice.

    Returns:
        The members' folders.

    Raises:
        TrainingError: if there are too few images, or siblings are wanted without a trainable base checkpoint.
        SuspectError: if the teacher of a distilled control is missing.
    """
    out = Path(out)
    if training.base_checkpoint is not None:
        trainable(training.base_checkpoint)
    elif any(m.from_checkpoint for m in members):
        raise TrainingError("siblings of the victim need its base checkpoint", "--init-from MODEL")
    with unfinished(out, kept=out / members[0].name):  # a panel that lacks members is not taken for a whole one
        return _train_members(out, members, training, callbacks)


def _train_members(
    out: Path, members: Sequence[PanelSpec], training: PanelTraining, callbacks: Callbacks
) -> list[Path]:
    folders = []
    for i, member in enumerate(members):
        shown = part(callbacks.progress, "member", i + 1, len(members), member.name)
        if member.distilled_from:
            folders.append(train_distilled(out, member, training, progress=shown))
            continue

        def warn(line: str, name: str = member.name) -> None:
            callbacks.warn(f"{name}: {line}")

        folders.append(_train_member(out, member, training, Callbacks(progress=shown, warn=warn)))
    return folders


def _train_member(out: Path, member: PanelSpec, training: PanelTraining, callbacks: Callbacks) -> Path:
    seed = training.config.seed + 1 + member.seed_offset
    config = replace(
        training.config,
        watermark=member.watermark,
        rotate=member.rotation_invariant,
        predictor="trained",
        seed=seed,
        epochs=training.config.epochs if member.from_checkpoint else training.epochs_from_scratch,
    )
    images = training.private
    if not member.trains_on_private:
        images = draw_images(training.others, len(training.private), seed)
    start = training.base_checkpoint if member.from_checkpoint else None
    return train_to(out / member.name, images, config, start=start, device=training.device, callbacks=callbacks).path
