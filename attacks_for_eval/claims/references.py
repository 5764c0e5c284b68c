"""Reference surrogates: surrogates that the owner extracts from the victim, to state what the claim can detect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from attacks_for_eval.extraction.losses import REFERENCE_LOSSES
from ownership.claims.record import EncoderRecord, NamedEncoder
from ownership.encoders.architectures import ARCHITECTURES, is_architecture
from ownership.encoders.images import EncoderLike, images_sha256, represent
from ownership.io.canonical import sha256
from ownership.io.files import write_bytes
from ownership.io.progress import Progress, part, silent
from watermark_training.encoder_files import weights_bytes

MIN_QUERIES = 64
"""Fewest queries that a reference surrogate is extracted with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceConfig:
    """How reference surrogates are extracted.

    Attributes:
        losses: one surrogate is extracted with each of these, names in `LOSSES`.
        queries: most images to query.
        epochs: epochs over the responses.
        seed: of the first surrogate; each further one adds 1.
        device: where to train.
        keep: folder that their files are written to; None: they are discarded.
    """

    losses: tuple[str, ...] = REFERENCE_LOSSES
    queries: int = 10_000
    epochs: int = 25
    seed: int = 0
    device: torch.device | str = "cpu"
    keep: Path | None = None


def pick_architecture(victim: EncoderLike, arch: str | None, images: Tensor) -> str | None:
    """Return the victim's architecture, or the first known one of its dimension; None if there is none."""
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
    config: ReferenceConfig = ReferenceConfig(),
    *,
    progress: Progress = silent,
) -> list[NamedEncoder]:
    """Extract one surrogate with each loss, from images that are not probes.

    Args:
        victim: the owner's encoder.
        arch: architecture of the surrogates.
        images: `(n, c, h, w)` uint8, disjoint from the probes.
        config: losses, number of queries, epochs, seed.
        progress: called after every step.

    Returns:
        Records and encoders, as `ownership.build_claim` takes them.
    """
    out: list[NamedEncoder] = []
    for i, loss in enumerate(config.losses):
        attack = ExtractionConfig(
            loss=loss,
            arch=arch,
            queries=min(config.queries, len(images)),
            epochs=config.epochs,
            batch_size=128,
            lr=2e-3,
            seed=config.seed + i,
        )
        shown = part(progress, "reference surrogate", i + 1, len(config.losses), loss)
        surrogate = extract(BlackBox(victim), images, attack, device=config.device, progress=shown)
        name, weights = f"reference_{loss}", weights_bytes(surrogate, arch)
        if config.keep is not None:
            write_bytes(config.keep / f"{name}.safetensors", weights, secret=True)
        record = EncoderRecord(
            name=name,
            kind="reference",
            sha256=sha256(weights),
            architecture=arch,
            data=f"{attack.queries} queries, images {images_sha256(images)[:16]}",
        )
        out.append(NamedEncoder(record, surrogate))
    return out
