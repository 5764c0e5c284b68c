"""A theft as a folder: extract a surrogate of a victim and write it down, with every query counted."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from attacks_for_eval.black_box import BlackBox
from attacks_for_eval.extraction import ExtractionConfig, extract
from attacks_for_eval.heads import HeadConfig, recreate_head
from ownership.errors import TrainingError, printable
from ownership.files import Progress, finished, read_json, silent, write_json
from ownership.images import EncoderLike
from watermark_training.artefacts import CONFIG, describe_data, save_encoder
from watermark_training.data import Data

METHODS = ("direct", "recreate-head", "access-head")
"""The paper's Table 1: compare representations, or latent vectors behind a recreated or given projection head."""


def steal_to(
    folder: Path,
    victim: EncoderLike,
    victim_sha256: str,
    data: Data,
    config: ExtractionConfig,
    *,
    method: str = "direct",
    head: nn.Module | None = None,
    budget: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> int:
    """Steals a surrogate into a folder, unless it holds the same theft already.

    Answers are kept in `answers.safetensors` as they are bought, until the theft is done, so that an interrupted one
    goes on without paying twice (unaugmented queries).

    Writes `encoder.safetensors`, `encoder.onnx` and `config.json` (configuration, data, victim, queries).

    Args:
        folder: where to.
        victim: the encoder to steal.
        victim_sha256: of its file, for the record.
        data: images to choose the queries from.
        config: what to train and how.
        method: name in `METHODS`.
        head: the victim's projection head, for "access-head".
        budget: most queries the victim answers in all; None for no limit.
        device: where the surrogate is trained.
        progress: called after every step.

    Returns:
        The number of queries the theft cost.

    Raises:
        TrainingError: if the method is unknown or lacks its head, or the folder holds something else.
        BudgetError: if the budget runs out; what was bought is kept.
    """
    if method not in METHODS:
        raise TrainingError(f"unknown method {method!r}", f"one of: {', '.join(METHODS)}")
    if method == "access-head" and head is None:
        raise TrainingError("access-head needs the victim's projection head", "steal from a train folder")
    described = describe_data(data.name, data.images)
    record = {"method": method, "steal": config.to_dict(), "data": described, "victim_sha256": victim_sha256}
    if finished(folder, CONFIG, record):
        return int(read_json(folder / CONFIG, TrainingError, "theft").get("queries", 0))
    if (folder / CONFIG).exists():
        raise TrainingError(f"{printable(folder, 300)} holds another encoder", "choose another --out")
    store = folder / "answers.safetensors"
    kept = _bought(store)
    box = BlackBox(victim, name=victim_sha256, budget=None if budget is None else budget - kept)
    if method == "recreate-head":
        recreated = HeadConfig(
            queries=config.queries, epochs=config.epochs, batch_size=config.batch_size, seed=config.seed
        )
        head = recreate_head(box, data.images, recreated, progress=progress)
    surrogate = extract(
        box,
        data.images,
        config,
        labels=data.labels,
        head=None if method == "direct" else head,
        store=store,
        device=device,
        progress=progress,
    )
    save_encoder(surrogate, config.arch, folder, (described["shape"][-2], described["shape"][-1]))
    write_json(
        folder / CONFIG,
        {
            "architecture": config.arch,
            "num_features": surrogate.dim,
            "queries": kept + box.queries,
            "unique_images": kept + box.unique_images,
            **record,
        },
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
