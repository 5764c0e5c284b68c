"""The initial state of a training run: seed, key, encoder and watermark."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ownership.encoders.architectures import CUSTOM, Encoder
from ownership.encoders.images import as_input, three_channels
from ownership.errors import TrainingError
from ownership.io.canonical import canonical_json, sha256
from ownership.io.text import printable
from ownership.keyed.key import Key
from ownership.keyed.pool import KeyMaterial
from ownership.watermark import WatermarkKey, paper_key
from watermark_training.augment import crop_view
from watermark_training.config import TrainConfig
from watermark_training.device import seeded_architecture
from watermark_training.distributed import from_first_process
from watermark_training.key_material import held_out, new_key_material
from watermark_training.keyed_watermark import SHARE, KeyedWatermark, number_of
from watermark_training.watermark import RotationWatermark, fresh_key

KEYED_SCALES = {"simclr": 1.0, "simsiam": 0.2, "barlow": 20.0, "embed": 1.0}
"""Method -> factor of the keyed watermark's weight, since the methods' losses differ in size: one `keyed_weight` gives
about the same watermark with each (before docs/adr/0034; digits, tiny, weight 1: z of the content map 6 to 10 after
225 steps)."""


def keyed_seed(seed: int, key: WatermarkKey | Key) -> int:
    """Return the generator seed of a run with a secret key: the configured seed, changed by a number of the key.

    An independent encoder trained with the same defaults, data and seed would otherwise share the initial weights and
    the order of the batches, and with them some of the similarity that partial RSA attributes to the victim alone.

    For a rotation watermark the number is a digest of a fixed spelling of the key, not of `WatermarkKey.to_dict`:
    renaming a field of the key must not change the weights that a configuration, a key and a data set give.
    """
    if isinstance(key, Key):
        return seed ^ number_of(key, "training")
    spelled = {
        "cuts": list(key.sector_boundaries),
        "form": "cuts-1",
        "margin": key.margin,
        "predictor_seed": key.predictor_seed,
    }
    return seed ^ int(sha256(canonical_json(spelled))[:12], 16)


def as_encoder(module: nn.Module, images: Tensor) -> Encoder:
    """Return a module of your own as an encoder that does not change its input.

    Args:
        module: images `(n, 3, h, w)` in `[0, 1]` -> representations `(n, d)`.
        images: `(n, c, h, w)` uint8 of the size that it takes; two are used.

    Raises:
        TrainingError: if it does not take them, or returns anything else.
    """
    if isinstance(module, Encoder):
        return module
    found = _returned(module, images[:2])
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 2:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise TrainingError(f"the module returns {shape} for 2 images", "(2, d) is expected: one row an image")
    return Encoder(module, found.shape[1], mean=0.0, std=1.0)


def check_takes(encoder: Encoder, images: Tensor) -> None:
    """Raise TrainingError unless the encoder takes images of this size and returns representations of its `dim`."""
    shape = tuple(_returned(encoder, images).shape)
    if shape != (len(images), encoder.dim):
        raise TrainingError(
            f"the encoder returns {shape} for {len(images)} images", f"({len(images)}, {encoder.dim}) is expected"
        )


def _returned(module: nn.Module, images: Tensor) -> Any:
    """What a module returns for uint8 images."""
    device = next((p.device for p in module.parameters()), None)
    try:
        with torch.no_grad():
            return module.eval()(three_channels(as_input(images)).to(device))
    except Exception as e:  # networks refuse a size with errors of every kind
        raise TrainingError(
            f"the encoder cannot take images of {images.shape[-2]} x {images.shape[-1]} ({printable(e, 120)})",
            "resize them to the size it takes (--size), or use another architecture",
        ) from e


def watermark_key(config: TrainConfig, given: WatermarkKey | None) -> WatermarkKey | None:
    """Return the key of the configured rotation task; None without a rotation watermark."""
    if config.watermark == "paper":
        return paper_key(config.seed)
    if config.watermark != "secret":
        return None
    # a fresh key never follows from config.seed, which is published with the encoder
    return from_first_process(fresh_key()) if given is None else given


def key_material(
    config: TrainConfig, images: Tensor, given: KeyMaterial | None
) -> tuple[KeyMaterial | None, Tensor | None, Tensor | None]:
    """Return the key of a keyed watermark; if none is given, a new one, from images that are not trained on.

    Returns:
        The key with its probes, None for another watermark; of a new key, the indices of the images that are left to
        train on, and its pool.
    """
    if config.watermark != "keyed":
        return None, None, None
    if given is not None:
        check_key_fits(given, images)
        return given, None, None
    rows, rest = held_out(len(images), config.seed)
    pool = images[rest]
    return new_key_material(pool), rows, pool


def check_key_fits(material: KeyMaterial, images: Tensor) -> None:
    """Raise TrainingError unless the key is for images of this size."""
    height, width = material.key.pool.shape[1:]
    if (height, width) != tuple(images.shape[-2:]):
        raise TrainingError(
            f"the key is for images of {height} x {width}, these are {images.shape[-2]} x {images.shape[-1]}",
            "resize them (--size), or make a key from images of their size",
        )


def watermark_module(
    config: TrainConfig, dim: int, key: WatermarkKey | None, material: KeyMaterial | None
) -> RotationWatermark | KeyedWatermark | None:
    """Return the watermark that is trained with the encoder; None without a key."""
    if material is not None:
        augmented = config.keyed_views and config.method != "embed"  # which teaches the images that it preserves
        view = partial(crop_view, flip=config.flip) if augmented else None
        weight = config.keyed_weight * KEYED_SCALES[config.method]
        share = None if config.method == "embed" else SHARE
        return KeyedWatermark(dim, material, weight=weight, fraction=config.keyed_fraction, view=view, share=share)
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
