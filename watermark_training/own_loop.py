"""The end of a training loop of your own: one call writes a train folder, which `turnmark claim build` takes."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from ownership.encoders.architectures import CUSTOM, Encoder, make_encoder
from ownership.encoders.backbones import as_encoder_state
from ownership.encoders.images import EncoderLike, check_images, represent
from ownership.errors import TrainingError
from ownership.io.files import new_folder, refuse_existing
from ownership.io.text import printable
from ownership.suspects.suspect import load_encoder
from watermark_training.choices import OWN_LOOP
from watermark_training.encoder_files import ONNX, WEIGHTS
from watermark_training.initial import as_encoder
from watermark_training.keyed_watermark import KeyedWatermark
from watermark_training.loaded_encoder import PREDICTOR
from watermark_training.train_folder import TrainFolder, describe_data, write_folder
from watermark_training.watermark import RotationWatermark

TOLERANCE = 1e-3
"""Largest difference of stored and given encoder, relative to the largest representation."""


def save_train_folder(
    folder: Path | str,
    encoder: nn.Module,
    images: Tensor,
    watermark: KeyedWatermark | RotationWatermark | None,
    *,
    arch: str | None = None,
    name: str = "own images",
    base_encoder: EncoderLike | None = None,
) -> TrainFolder:
    """Write an encoder of your own training loop as a train folder, with the secret of its watermark.

    A rotation watermark's predictor is fitted to the finished encoder first (`RotationWatermark.refit`). Of several
    processes, call it in one.

    Args:
        folder: where to write; it must be missing or empty.
        encoder: the trained module: images `(n, 3, h, w)` in `[0, 1]` -> representations `(n, d)`; on any device,
            compiled or wrapped by DistributedDataParallel. It is left unchanged.
        images: `(n, c, h, w)` uint8, what it was trained on.
        watermark: what it was trained with; None for no watermark.
        arch: name of a known architecture with these weights, such as "resnet18" or "timm:vit_tiny_patch16_224"; the
            folder then holds weights. If not given, it holds the module as ONNX.
        name: what the images are called in `config.json`.
        base_encoder: encoder that training started from, if others may have it; for the rotation predictor.

    Returns:
        The folder, with the key test on the encoder for a keyed watermark.

    Raises:
        TrainingError: if the module cannot be exported, or what is stored gives other representations.
        OwnershipError: if the folder is not empty.
    """
    folder = Path(folder)
    check_images(images, TrainingError)
    refuse_existing(folder, TrainingError)
    own = _plain(encoder)
    whole = as_encoder(own, images) if arch is None else _of_architecture(own, arch)
    training = {"arch": arch or CUSTOM, "method": OWN_LOOP, "watermark": "none"}
    with new_folder(folder) as place:
        if isinstance(watermark, RotationWatermark):
            frozen = not any(p.requires_grad for p in watermark.parameters())
            training |= {"watermark": "secret", "predictor": "frozen" if frozen else "trained"}
            watermark.cpu().refit(own, images, base_encoder)
            watermark.save(place / PREDICTOR)
        elif watermark is not None:
            training["watermark"] = "keyed"
            watermark.material.save(place)
        write_folder(place, whole, training, describe_data(name, images))
        _check_same(own, place / (ONNX if arch is None else WEIGHTS), images[:8])
    key_test = watermark.check(own) if isinstance(watermark, KeyedWatermark) else None
    return TrainFolder(path=folder, created=True, key_test=key_test)


def _check_same(module: nn.Module, path: Path, images: Tensor) -> None:
    expected, found = represent(module, images), represent(load_encoder(path).encoder, images)
    if found.shape != expected.shape or (found - expected).abs().max() > TOLERANCE * expected.abs().max():
        raise TrainingError(
            "the stored encoder gives other representations than the module",
            "leave out arch: an encoder of an architecture normalizes its images; or is the module random?",
        )


def _plain(encoder: nn.Module) -> nn.Module:
    """A copy of the module itself, on the CPU, in eval mode."""
    if isinstance(encoder, nn.parallel.DistributedDataParallel | nn.DataParallel):
        encoder = encoder.module
    encoder = getattr(encoder, "_orig_mod", encoder)  # of torch.compile
    return copy.deepcopy(encoder).cpu().eval()


def _of_architecture(module: nn.Module, arch: str) -> Encoder:
    """An encoder of a known architecture with the weights of a module."""
    encoder = make_encoder(arch)
    try:
        with torch.no_grad():
            encoder.load_state_dict(as_encoder_state(module.state_dict(), encoder.state_dict()))
    except RuntimeError as e:
        raise TrainingError(
            f"the module is not a {printable(arch)}", "leave out arch: the module is then stored as ONNX"
        ) from e
    return encoder.eval()
