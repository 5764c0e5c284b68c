"""A theft as a folder: extract a surrogate of a victim and write it down, with every query counted."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from attacks_for_eval.black_box import BlackBox
from attacks_for_eval.extraction import ExtractionConfig, extract
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
    budget: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> int:
    """Extracts a surrogate into a folder, unless it holds the same theft already.

    Answers are kept in `answers.safetensors` as they are bought, until the theft is done, so that an interrupted one
    goes on without paying twice (unaugmented queries).

    Writes `encoder.safetensors`, `encoder.onnx` and `config.json` (configuration, data, victim, queries).

    Args:
        folder: where to.
        victim: the encoder to steal.
        victim_sha256: of its file, for the record.
        data: images to choose the queries from.
        config: what to train and how.
        budget: most queries the victim answers; None for no limit.
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
    box = BlackBox(victim, budget=budget)
    store = folder / "answers.safetensors"
    kept = _bought(store)
    surrogate = extract(box, data.images, config, labels=data.labels, store=store, device=device, progress=progress)
    save_encoder(surrogate, config.arch, folder, (described["shape"][-2], described["shape"][-1]))
    write_json(
        folder / CONFIG,
        {"architecture": config.arch, "num_features": surrogate.dim, "queries": kept + box.queries, **record},
    )
    store.unlink(missing_ok=True)
    return kept + box.queries


def _bought(store: Path) -> int:
    """How many answers an interrupted theft has paid for already."""
    if not store.is_file():
        return 0
    try:
        with safe_open(store, framework="pt") as f:
            return int(f.get_slice("answers").get_shape()[0])
    except (SafetensorError, OSError, ValueError, IndexError) as e:
        raise TrainingError(f"{store.name} is damaged", "delete it; its answers must be bought again") from e
