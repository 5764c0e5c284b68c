"""Retrofit: embed the watermark in a trained encoder, as a train folder (docs/adr/0009)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ownership.watermark import WatermarkKey
from watermark_training.callbacks import Callbacks
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.loaded_encoder import LoadedEncoder, trainable
from watermark_training.train_folder import TrainFolder, train_to

EMBEDDING_DEFAULTS: dict[str, Any] = {
    "epochs": 8,
    "batch_size": 64,
    "lr": 5e-4,
    "watermark_weight": 0.1,
    "watermark_fraction": 0.5,  # a short run that learns nothing else: half of each batch shows the watermark
    "weight_decay": 0.0,
}
"""Configuration of an embedding where the caller gives nothing else; measured in docs/adr/0009."""


def embed_to(
    folder: Path | str,
    model: LoadedEncoder,
    data: Data,
    changes: dict[str, Any],
    *,
    key: WatermarkKey | None = None,
    onnx: bool = False,
    device: torch.device | str = "cpu",
    callbacks: Callbacks = Callbacks(),  # noqa: B008  (frozen)
) -> TrainFolder:
    """Embed a secret watermark in a trained encoder and write it as a train folder, unless that is done already.

    Args:
        folder: where to write.
        model: weights of a known architecture; its projection head, if it has one, is kept.
        data: images like those the encoder was trained on.
        changes: fields of `TrainConfig` that replace `EMBEDDING_DEFAULTS`.
        key: secret key; a fresh one if not given.
        onnx: whether `encoder.onnx` is written too.
        device: where to compute.
        callbacks: progress, advice, metrics.

    Raises:
        TrainingError: if the model's weights cannot be trained on, or as in `train`.
    """
    _, arch = trainable(model)
    before = model.config.get("train", {})
    views = {name: before[name] for name in ("min_crop", "flip") if name in before}  # dataset inference uses them
    config = TrainConfig(arch=arch, method="embed", **{**EMBEDDING_DEFAULTS, **views, **changes})
    return train_to(folder, data, config, key=key, start=model, onnx=onnx, device=device, callbacks=callbacks)
