"""Students of a panel's members: the innocents who look most like a thief that trained the mark away.

Somebody may teach an encoder of his own to answer an image, however it is turned, as another encoder answers it
upright. If that one has nothing to do with the victim, he is innocent; yet his answers to turned images resemble the
victim's more than those of anybody do who was not taught so (docs/adr/0025). They are taught by the code of thieves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import torch

from attacks_for_eval.config import ExtractionConfig
from attacks_for_eval.steal import steal_to
from ownership.files import Progress, silent
from watermark_training.artefacts import load_trained
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.panel import TAUGHT, Stranger, part_of

LOSSES = ("mse", "infonce")
"""Every second student by each; every other two of them for twice as long: nobody knows how patient somebody was."""


def teach_students(
    training: TrainConfig,
    world: Data,
    images: int,
    out: Path,
    *,
    members: Sequence[Stranger],
    epochs: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> list[Path]:
    """Teaches the students of a panel, each into a folder; what is finished is not done again.

    Args:
        training: the victim's; architecture, passes, batch and learning rate are the students', too.
        world: images that the teachers are asked about.
        images: how many of them.
        out: the panel's folder, with the teachers in it (`train_panel`).
        members: whom to teach; the seed of each follows from its name, so that a panel can grow.
        epochs: passes over the answers; the victim's if not given.
        device: where to compute.
        progress: called after every step, counted over all students.

    Returns:
        The students' folders.

    Raises:
        SuspectError: if a teacher is not there.
        TrainingError: if a folder holds something else.
    """
    folders = []
    for i, member in enumerate(members):
        teacher = load_trained(out / member.teacher)
        seed = training.seed + 1 + crc32(member.name.encode())
        passes = (training.epochs if epochs is None else epochs) * (1 + i // len(LOSSES) % 2)
        config = ExtractionConfig(
            loss=LOSSES[i % len(LOSSES)],
            arch=training.arch,
            queries=images,
            epochs=passes,
            batch_size=training.batch_size,
            lr=training.lr,
            seed=seed,
        )

        def show(_what: str, done: int, total: int, i: int = i, name: str = member.name) -> None:
            progress(f"teaching {name}", 1000 * i + 1000 * done // max(1, total), 1000 * len(members))

        steal_to(
            out / member.name,
            teacher.encoder,
            teacher.sha256,
            part_of(world, images, seed),
            config,
            method=TAUGHT,
            device=device,
            progress=show,
        )
        folders.append(out / member.name)
    return folders
