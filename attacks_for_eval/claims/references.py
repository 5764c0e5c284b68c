"""Reference surrogates: thefts of the victim that its owner makes, to know what the claim can find."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from attacks_for_eval.extraction.losses import REFERENCE_LOSSES
from ownership.claims.record import EncoderRecord
from ownership.encoders.architectures import ARCHITECTURES, is_architecture
from ownership.encoders.images import EncoderLike, images_sha256, represent
from ownership.io.canonical import sha256
from ownership.io.progress import Progress, silent
from watermark_training.train_folder import weights_bytes

MIN_QUERIES = 64
"""Fewer queries than this make no theft worth the name."""


def pick_architecture(victim: EncoderLike, arch: str | None, images: Tensor) -> str | None:
    """Returns the victim's architecture, or the first known one of its dimension; None if there is none."""
    if arch is not None and is_architecture(arch):
        return arch
    dim = represent(victim, images[:2]).shape[1]
    for name, make in ARCHITECTURES.items():
        with torch.device("meta"):
            if make().dim == dim:
                return name
    return None


def reference_surrogates(
    victim: EncoderLike,
    arch: str,
    images: Tensor,
    *,
    losses: tuple[str, ...] = REFERENCE_LOSSES,
    queries: int = 10_000,
    epochs: int = 25,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> list[tuple[EncoderRecord, EncoderLike]]:
    """Extracts one surrogate a loss from images that are no probes.

    Args:
        victim: the owner's encoder.
        arch: architecture of the surrogates.
        images: `(n, c, h, w)` uint8, disjoint from the probes; at most `queries` of them are used.
        losses: names in `LOSSES`.
        queries: most images to use.
        epochs: passes over the answers.
        seed: of the thefts.
        device: where to train.
        progress: called after every step.

    Returns:
        Records and encoders for `ownership.build_claim`.
    """
    out: list[tuple[EncoderRecord, EncoderLike]] = []
    for i, loss in enumerate(losses):
        config = ExtractionConfig(
            loss=loss,
            arch=arch,
            queries=min(queries, len(images)),
            epochs=epochs,
            batch_size=128,
            lr=2e-3,
            seed=seed + i,
        )
        surrogate = extract(
            BlackBox(victim),
            images,
            config,
            device=device,
            progress=lambda _, done, total, i=i: progress(
                "reference surrogates", i * total + done, len(losses) * total
            ),  # type: ignore[misc]
        )
        member = EncoderRecord(
            name=f"reference_{loss}",
            kind="reference",
            sha256=sha256(weights_bytes(surrogate, arch)),
            architecture=arch,
            data=f"{config.queries} queries, images {images_sha256(images)[:16]}",
        )
        out.append((member, surrogate))
    return out
