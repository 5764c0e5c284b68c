"""The initial state of a training run: seed, key, encoder and watermark."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ownership.encoders.architectures import CUSTOM, Encoder
from ownership.encoders.images import as_input, three_channels
from ownership.errors import TrainingError
from ownership.io.canonical import canonical_json, sha256
from ownership.io.text import printable
from ownership.watermark import WatermarkKey, paper_key
from watermark_training.config import TrainConfig
from watermark_training.device import seeded_architecture
from watermark_training.distributed import from_first_process
from watermark_training.watermark import RotationWatermark, fresh_key


def keyed_seed(seed: int, key: WatermarkKey) -> int:
    """Return the generator seed of a run with a secret key: the configured seed, changed by a digest of the key.

    An independent encoder trained with the same defaults, data and seed would otherwise share the initial weights and
    the order of the batches, and with them some of the similarity that partial RSA attributes to the victim alone.

    The digest is taken of a fixed spelling of the key, not of `WatermarkKey.to_dict`: renaming a field of the key must
    not change the weights that a configuration, a key and a data set give.
    """
    spelled = {
        "cuts": list(key.sector_boundaries),
        "form": "cuts-1",
        "margin": key.margin,
        "predictor_seed": key.predictor_seed,
    }
    return seed ^ int(sha256(canonical_json(spelled))[:12], 16)


def check_takes(encoder: Encoder, images: Tensor) -> None:
    """Raise TrainingError unless the encoder takes images of this size and returns representations of its `dim`."""
    try:
        with torch.no_grad():
            shape = tuple(encoder.eval()(three_channels(as_input(images))).shape)
    except Exception as e:  # networks refuse a size with errors of every kind
        raise TrainingError(
            f"the encoder cannot take images of {images.shape[-2]} x {images.shape[-1]} ({printable(e, 120)})",
            "resize them to the size it takes (--size), or use another architecture",
        ) from e
    if shape != (len(images), encoder.dim):
        raise TrainingError(
            f"the encoder returns {shape} for {len(images)} images", f"({len(images)}, {encoder.dim}) is expected"
        )


def watermark_key(config: TrainConfig, given: WatermarkKey | None) -> WatermarkKey | None:
    """Return the key of the configured rotation task; None without a watermark."""
    if config.watermark == "paper":
        return paper_key(config.seed)
    if config.watermark == "none":
        return None
    # a fresh key never follows from config.seed, which is published with the encoder
    return from_first_process(fresh_key()) if given is None else given


def watermark_module(config: TrainConfig, dim: int, key: WatermarkKey | None) -> RotationWatermark | None:
    """Return the watermark that is trained with the encoder; None without a key."""
    if key is None:
        return None
    return RotationWatermark(
        dim,
        key,
        fraction=config.watermark_fraction,
        weight=config.watermark_weight,
        train_predictor=config.predictor == "trained",
    )


def initial_encoder(config: TrainConfig, start: Encoder | None, generator: torch.Generator) -> Encoder:
    """Return the encoder that training starts with.

    Raises:
        TrainingError: if `start` is missing or has another architecture.
    """
    if start is None:
        if config.arch == CUSTOM:
            raise TrainingError(
                "a custom architecture needs an encoder to start from", "train(..., start=Encoder(...))"
            )
        if config.method == "embed":
            raise TrainingError("there is no encoder to embed the watermark in", "turnmark embed MODEL DATA")
        return seeded_architecture(config.arch, generator)
    if config.arch == CUSTOM:
        return copy.deepcopy(start)
    encoder = seeded_architecture(config.arch, generator)
    try:
        encoder.load_state_dict(start.state_dict())
    except RuntimeError as e:
        raise TrainingError(f"the encoder to start from is not a {config.arch}", "name its architecture") from e
    return encoder
