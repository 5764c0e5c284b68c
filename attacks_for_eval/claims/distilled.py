"""Students of a panel's members: the innocents who look most like a thief that trained the mark away.

Somebody may teach an encoder of his own to answer an image, however it is turned, as another encoder answers it
upright. If that one has nothing to do with the victim, he is innocent; yet his answers to turned images resemble the
victim's more than those of anybody do who was not taught so (docs/adr/0025). They are taught by the code of thieves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from attacks_for_eval.claims.panel import TAUGHT, PanelSpec, part_of
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.run import extract_to
from ownership.io.progress import Progress, silent
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.train_folder import load_trained

LOSSES = ("mse", "infonce")


def way(teacher: str) -> tuple[str, int]:
    """Returns the loss by which a member's student is taught, and how many times the usual passes.

    Half are taught by each loss and half for longer, as nobody knows how patient somebody was. It follows from the
    teacher alone, so that a panel can grow.

    >>> [way(f"{kind}_{i}") for kind in ("watermarked", "plain") for i in range(2)]
    [('mse', 1), ('mse', 2), ('infonce', 1), ('infonce', 2)]
    """
    kind, _, i = teacher.rpartition("_")
    return LOSSES[(int(i) // 2 + (kind == "plain")) % 2], 1 + int(i) % 2


def train_distilled(
    training: TrainConfig,
    world: Data,
    images: int,
    out: Path,
    *,
    members: Sequence[PanelSpec],
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
        members: whom to teach; the seed of each follows from its name, how it is taught from its teacher's.
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
        seed = training.seed + 1 + member.seed_offset
        loss, longer = way(member.teacher)
        config = ExtractionConfig(
            loss=loss,
            arch=training.arch,
            queries=images,
            epochs=(training.epochs if epochs is None else epochs) * longer,
            batch_size=training.batch_size,
            lr=training.lr,
            seed=seed,
        )

        def show(_what: str, done: int, total: int, i: int = i, name: str = member.name) -> None:
            progress(f"teaching {name}", 1000 * i + 1000 * done // max(1, total), 1000 * len(members))

        extract_to(
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
