"""Distilled controls: the panel members that most resemble a surrogate trained to remove the watermark.

An encoder can be trained to represent an image, at any rotation, as another encoder represents it unrotated. If that
teacher is independent of the victim, so is the distilled encoder. Yet its representations of rotated images resemble
the victim's more than those of any encoder that was not trained this way (docs/adr/0025).
"""

from __future__ import annotations

from pathlib import Path

from attacks_for_eval.claims.panel_spec import DISTILLATION_METHOD, PanelSpec, PanelTraining, draw_images
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.run import Victim, extract_to
from ownership.io.progress import Progress, silent
from watermark_training.loaded_encoder import load_trained

DISTILLATION_LOSSES = ("mse", "infonce")


def distillation_schedule(teacher: str) -> tuple[str, int]:
    """Return the loss that a panel member is distilled with, and the factor on the usual number of epochs.

    Both follow from the teacher's name, so that a panel can grow: half of the distilled controls use each loss, and
    half of them train twice as long, because the effort of others is not known.

    >>> [distillation_schedule(f"{kind}_{i}") for kind in ("watermarked", "plain") for i in range(2)]
    [('mse', 1), ('mse', 2), ('infonce', 1), ('infonce', 2)]
    """
    kind, _, number = teacher.rpartition("_")
    i = int(number)
    return DISTILLATION_LOSSES[(i // 2 + (kind == "plain")) % 2], 1 + i % 2


def train_distilled(out: Path, spec: PanelSpec, training: PanelTraining, *, progress: Progress = silent) -> Path:
    """Distil one control from a panel member that lies in `out`, unless that is done already; return its folder.

    Args:
        out: the panel's folder.
        spec: which control; its seed follows from its name, its loss and epochs from its teacher's.
        training: how the panel is trained; the teacher is queried with as many other images as the victim was trained
            on.
        progress: called after every step.

    Raises:
        SuspectError: if the teacher is not there.
        TrainingError: if the folder holds something else.
    """
    teacher = load_trained(out / spec.distilled_from)
    seed = training.config.seed + 1 + spec.seed_offset
    loss, factor = distillation_schedule(spec.distilled_from)
    images = len(training.private)
    config = ExtractionConfig(
        loss=loss,
        arch=training.config.arch,
        queries=images,
        epochs=training.epochs_from_scratch * factor,
        batch_size=training.config.batch_size,
        lr=training.config.lr,
        seed=seed,
    )
    return extract_to(
        out / spec.name,
        Victim(encoder=teacher.encoder, name=teacher.sha256),
        draw_images(training.others, images, seed),
        config,
        method=DISTILLATION_METHOD,
        device=training.device,
        progress=progress,
    ).path
