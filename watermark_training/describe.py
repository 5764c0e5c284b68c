"""A train folder in words."""

from __future__ import annotations

import json
from pathlib import Path

from ownership.encoders.architectures import Encoder
from ownership.errors import SuspectError
from ownership.io.files import read_bytes
from ownership.io.text import printable
from watermark_training.train_folder import load_trained


def describe(folder: Path) -> list[str]:
    """Returns lines that say what a train folder, or an encoder's file, holds; nothing of the key is in them.

    Raises:
        SuspectError: if it is neither.
    """
    loaded = load_trained(folder)
    lines = [f"encoder     {loaded.architecture or 'ONNX'}, SHA-256 {loaded.sha256}"]
    if isinstance(loaded.encoder, Encoder):
        count = sum(p.numel() for p in loaded.encoder.parameters())
        lines[0] += f", {loaded.encoder.dim} numbers an answer, {count:,} parameters"
    if not loaded.config:
        return [*lines, "            a bare file: how it was trained is not known"]
    training, data = loaded.config.get("train", {}), loaded.config.get("data", {})
    if theft := loaded.config.get("steal"):
        session = loaded.config.get("unique_images")
        lines.append(
            f"theft       {loaded.config.get('method')}, loss {theft.get('loss')}, {session} images asked about"
        )
    if training:
        embedded = "the mark was embedded in a trained encoder"
        lines.append(
            f"training    {embedded if training.get('method') == 'embed' else training.get('method')}: "
            f"{training.get('epochs')} passes, batches of {training.get('batch_size')}, seed {training.get('seed')}"
        )
    if data:
        lines.append(f"images      {data.get('images')} of {printable(str(data.get('name')))}")
    if base_checkpoint := loaded.config.get("base_checkpoint"):
        lines.append(f"ancestor    SHA-256 {printable(str(base_checkpoint))}")
    if not training:
        return lines
    watermark = {None: "none", "paper": "the paper's public half-turn task"}.get(
        training.get("watermark"), training.get("watermark")
    )
    where = "; the key is in predictor.safetensors, keep it secret" if loaded.key is not None else ""
    lines.append(f"mark        {watermark}{where}")
    rows = [json.loads(line) for line in _text(folder / "metrics.jsonl").splitlines()]
    if rows:
        shown = ", ".join(
            f"{name.replace('_', ' ')} {value:.3f}" for name, value in rows[-1].items() if name != "epoch"
        )
        lines.append(f"at the end  {shown}")
    return lines


def _text(path: Path) -> str:
    return read_bytes(path, SuspectError, "metrics").decode() if path.is_file() else ""
