"""Describe a train folder in lines of text."""

from __future__ import annotations

import json
from pathlib import Path

from ownership.encoders.architectures import Encoder
from ownership.errors import SuspectError
from ownership.io.files import read_bytes
from ownership.io.text import printable
from ownership.keyed.pool import KEY_FILE, KeyMaterial
from watermark_training.callbacks import METRICS
from watermark_training.choices import OWN_LOOP
from watermark_training.loaded_encoder import PREDICTOR, LoadedEncoder, load_trained

WATERMARKS = {"paper": "the paper's public 180-degree rotation task", None: "none"}


def describe(folder: Path) -> list[str]:
    """Return lines that describe a train folder or an encoder's file; they say nothing about the key.

    Raises:
        SuspectError: if the path is neither.
    """
    loaded = load_trained(folder)
    lines = [f"encoder     {loaded.architecture or 'ONNX'}, SHA-256 {loaded.sha256}"]
    if isinstance(loaded.encoder, Encoder):
        count = sum(p.numel() for p in loaded.encoder.parameters())
        lines[0] += f", {loaded.encoder.dim}-dimensional representations, {count:,} parameters"
    if not loaded.config:
        return [*lines, "            a single file: its training is not known"]
    lines += _training(loaded)
    rows = [json.loads(line) for line in _text((folder if folder.is_dir() else folder.parent) / METRICS).splitlines()]
    if rows and loaded.config.get("train"):
        shown = ", ".join(f"{name.replace('_', ' ')} {x:.3f}" for name, x in rows[-1].items() if name != "epoch")
        lines.append(f"last epoch  {shown}")
    return lines


def _training(loaded: LoadedEncoder) -> list[str]:
    config = loaded.config
    training, data = config.get("train", {}), config.get("data", {})
    lines = []
    if extraction := config.get("extraction"):
        images = config.get("unique_images")
        lines.append(f"extraction  {config.get('method')}, loss {extraction.get('loss')}, {images} images queried")
    if training:
        method = training.get("method")
        how = "watermark embedded in a trained encoder" if method == "embed" else method
        if method != OWN_LOOP:
            how = f"{how}: {training.get('epochs')} epochs, batch size {training.get('batch_size')}"
            how += f", seed {training.get('seed')}"
        lines.append(f"training    {how}")
    if data:
        lines.append(f"images      {data.get('images')} of {printable(str(data.get('name')))}")
    if base_checkpoint := config.get("base_checkpoint"):
        lines.append(f"started from  base checkpoint with SHA-256 {printable(str(base_checkpoint))}")
    if training:
        task = training.get("watermark")
        where = "; "
        if task == "keyed":
            where += _keyed(loaded.material)
        elif loaded.key is not None:
            where += f"the key is in {PREDICTOR}, keep it secret"
        elif task not in (None, "none"):
            where += f"{PREDICTOR} is missing: no claim can use this watermark"
        lines.append(f"watermark   {WATERMARKS.get(task, task)}{where if where != '; ' else ''}")
    return lines


def _keyed(material: KeyMaterial | None) -> str:
    if material is None:
        return f"{KEY_FILE} is missing: no claim can use this watermark"
    anchor = "unanchored" if material.key.anchor is None else "anchored"
    anchor += "" if material.key.beacon is None else ", beacon-drawn"
    return f"{anchor} key with commitment {material.key.commitment_sha256} in {KEY_FILE}, keep it secret"


def _text(path: Path) -> str:
    return read_bytes(path, SuspectError, "metrics").decode() if path.is_file() else ""
