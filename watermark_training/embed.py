"""Retrofit: the mark in an encoder that exists, as a train folder (docs/adr/0009)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ownership.io.progress import Progress, silent
from ownership.watermark import WatermarkKey
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.train_folder import Loaded, train_to, trainable

SETTINGS: dict[str, Any] = {
    "epochs": 8,
    "batch_size": 64,
    "lr": 5e-4,
    "watermark_weight": 0.1,
    "watermark_fraction": 0.5,  # a short run in which the mark is all that is learnt: half of each batch shows it
    "weight_decay": 0.0,
}
"""How a mark is embedded where nothing else is asked for; measured in docs/adr/0009."""


def embed_to(
    folder: Path,
    model: Loaded,
    data: Data,
    changes: dict[str, Any],
    *,
    key: WatermarkKey | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
    warn: Callable[[str], None] = lambda _: None,
) -> bool:
    """Adds a secret mark to an encoder that exists and writes it as a train folder, unless that is done already.

    Args:
        folder: where to.
        model: weights of a known architecture; its projection head, if it has one, is kept.
        data: images like those it was trained on.
        changes: to `SETTINGS`, as fields of the configuration; a seed.
        key: as in `train`.
        device: where to compute.
        progress: called after every step.
        warn: called with a line of advice if the mark does not learn.

    Returns:
        Whether anything had to be done.

    Raises:
        TrainingError: if the model's weights cannot be trained on, or as in `train`.
    """
    encoder, arch = trainable(model)
    before = model.config.get("train", {})
    views = {name: before[name] for name in ("min_crop", "flip") if name in before}  # dataset inference uses them
    config = TrainConfig(arch=arch, method="embed", **{**SETTINGS, **views, **changes})
    return train_to(
        folder,
        data,
        config,
        key=key,
        start=encoder,
        base_checkpoint=model.sha256,
        head=model.projection_head,
        device=device,
        progress=progress,
        warn=warn,
    )
