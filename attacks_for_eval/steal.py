"""A theft as a folder: extract a surrogate of a victim and write it down, with every query counted."""

from __future__ import annotations

from pathlib import Path

import torch

from attacks_for_eval.extraction import BlackBox, ExtractionConfig, extract
from ownership.errors import TrainingError, printable
from ownership.files import Progress, finished, read_json, silent, write_json
from ownership.images import EncoderLike
from watermark_training.artefacts import CONFIG, describe_data, save_encoder
from watermark_training.data import Data


def steal_to(
    folder: Path,
    victim: EncoderLike,
    victim_sha256: str,
    data: Data,
    config: ExtractionConfig,
    *,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> int:
    """Extracts a surrogate into a folder, unless it holds the same theft already.

    Writes `encoder.safetensors`, `encoder.onnx` and `config.json` (configuration, data, victim, queries).

    Args:
        folder: where to.
        victim: the encoder to steal.
        victim_sha256: of its file, for the record.
        data: images to choose the queries from.
        config: what to train and how.
        device: where the surrogate is trained.
        progress: called after every step.

    Returns:
        The number of queries the theft cost.
    """
    described = describe_data(data.name, data.images)
    record = {"steal": config.to_dict(), "data": described, "victim_sha256": victim_sha256}
    if finished(folder, CONFIG, record):
        return int(read_json(folder / CONFIG, TrainingError, "theft").get("queries", 0))
    if (folder / CONFIG).exists():
        raise TrainingError(f"{printable(folder, 300)} holds another encoder", "choose another --out")
    box = BlackBox(victim)
    surrogate = extract(box, data.images, config, device=device, progress=progress)
    save_encoder(surrogate, config.arch, folder, (described["shape"][-2], described["shape"][-1]))
    write_json(
        folder / CONFIG,
        {"architecture": config.arch, "num_features": surrogate.dim, "queries": box.queries, **record},
    )
    return box.queries
