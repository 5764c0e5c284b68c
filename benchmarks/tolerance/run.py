"""Audit surrogates and independent encoders behind providers that change images or representations.

    TURNMARK_DATA=runs/data python -m benchmarks.tolerance run --work runs/verdicts/fashion-mnist

Takes a claim of the verdict benchmark, makes three surrogates of its victim (8,000 queries, the victim's architecture)
and three independent encoders (plain, a foreign key, the public task; other images), and audits each as if its provider
re-encoded or resized images, or rounded, cut off or quantised representations. No setting was chosen by it.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from attacks_for_eval.evaluation.spec import DEFAULT, ModelSpec
from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from benchmarks.common.machine import versions
from benchmarks.common.rows import Row, RowStore
from ownership.auditing.engine import audit
from ownership.claims.claim import Claim
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike, as_input, as_uint8
from ownership.io.files import write_bytes
from ownership.suspects.suspect import Suspect, load_encoder
from ownership.verdict.rule import Verdict
from watermark_training.config import TrainConfig
from watermark_training.data import load_data
from watermark_training.encoder_files import weights_bytes
from watermark_training.training import train

ROWS = RowStore("tolerance")
WATERMARKS: tuple[Literal["none", "secret", "paper"], ...] = ("none", "secret", "paper")
Change = Callable[[Tensor], Tensor]


def jpeg(quality: int) -> Change:
    """Return a change of images: through JPEG."""

    def change(images: Tensor) -> Tensor:
        out = []
        for image in as_uint8(images):
            buffer = io.BytesIO()
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
            out.append(torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1))
        return as_input(torch.stack(out))

    return change


def through(size: int) -> Change:
    """Return a change of images: resized to `size` pixels and back, as a model of another input size sees them."""

    def change(images: Tensor) -> Tensor:
        small = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        return F.interpolate(small, size=images.shape[-2:], mode="bilinear", antialias=True).clamp(0, 1)

    return change


def quantised(levels: int) -> Change:
    """Return a change of rows: `levels` steps between the smallest and largest number of each image."""

    def change(rows: Tensor) -> Tensor:
        low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
        step = (high - low).clamp_min(1e-12) / (levels - 1)
        return ((rows - low) / step).round() * step + low

    return change


def unit(rows: Tensor) -> Tensor:
    """Scale rows to length 1, as most services do."""
    return F.normalize(rows, dim=1)


SAME: Change = lambda x: x  # noqa: E731
CASES: dict[str, tuple[Change, Change]] = {
    "nothing": (SAME, SAME),
    "JPEG, quality 95": (jpeg(95), SAME),
    "JPEG, quality 75": (jpeg(75), SAME),
    "JPEG, quality 50": (jpeg(50), SAME),
    "JPEG, quality 25": (jpeg(25), SAME),
    "seen at 24 of 28 pixels": (through(24), SAME),
    "seen at 20 of 28 pixels": (through(20), SAME),
    "seen at 14 of 28 pixels": (through(14), SAME),
    "length 1, three decimals": (SAME, lambda x: (unit(x) * 1000).round() / 1000),
    "length 1, two decimals": (SAME, lambda x: (unit(x) * 100).round() / 100),
    "256 steps (int8)": (SAME, quantised(256)),
    "16 steps (int4)": (SAME, quantised(16)),
    "4 steps": (SAME, quantised(4)),
    "signs only": (SAME, lambda x: (x - x.mean(1, keepdim=True)).sign()),
    "first half of the numbers": (SAME, lambda x: x[:, : x.shape[1] // 2]),
    "first quarter": (SAME, lambda x: x[:, : x.shape[1] // 4]),
    "first eighth": (SAME, lambda x: x[:, : x.shape[1] // 8]),
    "JPEG 75, then first half, three decimals": (
        jpeg(75),
        lambda x: (unit(x[:, : x.shape[1] // 2]) * 1000).round() / 1000,
    ),
}


def served(encoder: EncoderLike, case: str) -> EncoderLike:
    """Return the encoder behind its provider."""
    images_change, rows_change = CASES[case]
    return lambda images: rows_change(encoder(images_change(images)))


def trained(images: Tensor, config: TrainConfig) -> Encoder:
    """Train an encoder."""
    return train(images, config).encoder


def models(work: Path, victim: EncoderLike) -> tuple[dict[str, EncoderLike], dict[str, EncoderLike]]:
    """Return surrogates and independent encoders by name; made once, kept below `work`."""
    queries = load_data("fashion-mnist:train[44000:52000]").images
    own = load_data("fashion-mnist:train[52000:56000]").images
    made: tuple[dict[str, EncoderLike], dict[str, EncoderLike]] = ({}, {})

    def kept(name: str, make: Callable[[], Encoder]) -> EncoderLike:
        path = work / f"{name}.safetensors"
        if not path.is_file():
            write_bytes(path, weights_bytes(make(), "small"))
        return load_encoder(path).encoder

    for loss in ("mse", "infonce", "softnn"):
        config = ExtractionConfig(
            loss=loss, arch="small", queries=len(queries), epochs=6, batch_size=128, lr=2e-3, seed=77
        )
        made[0][loss] = kept(f"surrogate_{loss}", partial(extract, BlackBox(victim), queries, config))
    for i, watermark in enumerate(WATERMARKS):
        spec = ModelSpec(role="independent", kind="", epochs=12, seed=900 + i, watermark=watermark)
        made[1][watermark] = kept(f"independent_{watermark}", partial(trained, own, DEFAULT.training(spec)))
    return made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--work", type=Path, required=True, help="folder of the verdict benchmark, of one data set")


def run(arguments: argparse.Namespace) -> None:
    """Audit every case and replace all rows."""
    claim, rows = Claim.load(arguments.work / "claim_0"), []
    victim = load_encoder(arguments.work / "victim_0" / "encoder.safetensors").encoder
    surrogates, independents = models(arguments.work / "tolerance", victim)
    for case in CASES:
        row: Row = {"case": case, "supported": {}, "relative": {}, "versions": versions()}
        for name, encoder in (surrogates | independents).items():
            suspect = Suspect(
                name=name, format="", sha256="0" * 64, size=0, architecture="small", encoder=served(encoder, case)
            )
            report = audit(claim, suspect)
            row["supported"][name] = report.verdict is Verdict.SUPPORTED
            row["relative"][name] = next((r.value for r in report.results if r.name == "partial_rsa_relative"), 0.0)
        rows.append(row)
        print(f"{len(rows)} of {len(CASES)}: {row}", flush=True)
    ROWS.save(rows)
