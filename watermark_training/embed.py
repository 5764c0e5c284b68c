"""Retrofit: embed the watermark in a trained encoder, as a train folder (docs/adr/0009)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ownership.encoders.architectures import CUSTOM
from ownership.keyed.pool import KeyMaterial
from ownership.watermark import WatermarkKey
from watermark_training.callbacks import Callbacks
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.initial import as_encoder
from watermark_training.loaded_encoder import LoadedEncoder, trainable
from watermark_training.train_folder import TrainFolder, train_to

EMBEDDING_DEFAULTS: dict[str, Any] = {
    "epochs": 8,
    "batch_size": 64,
    "lr": 5e-4,
    "keyed_weight": 0.3,
    "keyed_fraction": 1.0,  # the loss reads the very images that are preserved, so it costs next to nothing
    "watermark_weight": 0.1,
    "watermark_fraction": 0.5,  # a short run that learns nothing else: half of each batch shows the watermark
    "weight_decay": 0.0,
}
"""Configuration of an embedding where the caller gives nothing else; measured in docs/adr/0009."""


def embed_to(
    folder: Path | str,
    model: LoadedEncoder | nn.Module,
    data: Data,
    changes: dict[str, Any],
    *,
    key: WatermarkKey | None = None,
    material: KeyMaterial | None = None,
    onnx: bool = False,
    device: torch.device | str = "cpu",
    callbacks: Callbacks = Callbacks(),  # noqa: B008  (frozen)
) -> TrainFolder:
    """Embed a watermark in a trained encoder and write it as a train folder, unless that is done already.

    Args:
        folder: where to write.
        model: weights of a known architecture, whose projection head, if they have one, is kept; or a module of your
            own from images `(n, 3, h, w)` in `[0, 1]` to representations `(n, d)`, which is stored as ONNX.
        data: images like those the encoder was trained on.
        changes: fields of `TrainConfig` that replace `EMBEDDING_DEFAULTS`.
        key: secret key of a rotation watermark; a fresh one if not given.
        material: key of a keyed watermark; a new, unanchored one if not given, from images that are held out
            (`train`).
        onnx: whether `encoder.onnx` is written too.
        device: where to compute.
        callbacks: progress, advice, metrics.

    Raises:
        TrainingError: if the model's weights cannot be trained on, or as in `train`.
    """
    if isinstance(model, LoadedEncoder):
        arch, before = trainable(model)[1], model.config.get("train", {})
    else:
        arch, before, model = CUSTOM, {}, as_encoder(model, data.images)
    views = {name: before[name] for name in ("min_crop", "flip") if name in before}  # dataset inference uses them
    config = TrainConfig(arch=arch, method="embed", **{**EMBEDDING_DEFAULTS, **views, **changes})
    return train_to(
        folder, data, config, key=key, material=material, start=model, onnx=onnx, device=device, callbacks=callbacks
    )
