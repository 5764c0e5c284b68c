"""A theft as a folder: extract a surrogate of a victim and write it down, with every query counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig, with_method
from attacks_for_eval.extraction.extract import extract
from attacks_for_eval.extraction.heads import HeadConfig, recreate_head
from attacks_for_eval.extraction.labels import RESPONSE_KINDS, Answer, Classifier, fit_layer, steal_labels
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike
from ownership.errors import TrainingError
from ownership.io.files import finished, read_json, write_json
from ownership.io.progress import Progress, silent
from ownership.io.text import printable
from watermark_training.data import Data
from watermark_training.train_folder import CONFIG, describe_data, save_encoder

KINDS = ("representations", *RESPONSE_KINDS)
"""What a victim gives out, as its thief declares it."""

STORE = "answers.sqlite"


def extract_to(
    folder: Path,
    victim: EncoderLike,
    victim_sha256: str,
    data: Data,
    config: ExtractionConfig,
    *,
    method: str = "direct",
    output_kind: str = "representations",
    head: nn.Module | None = None,
    budget: int | None = None,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> int:
    """Steals a surrogate into a folder, unless it holds the same theft already.

    Responses are kept in `answers.sqlite` as they are bought, until the theft is done, so that an interrupted one goes on
    without paying twice.

    Writes `encoder.safetensors`, `encoder.onnx` and `config.json` (configuration, data, victim, queries).

    Args:
        folder: where to.
        victim: what to steal.
        victim_sha256: of its file, for the record; or its address.
        data: images to choose the queries from.
        config: what to train and how.
        method: name in `METHODS`; its fields replace those of `config`.
        output_kind: what the victim gives out; from labels, posteriors and logits only "direct" can steal.
        head: the victim's projection head, for "access-head".
        budget: most queries the victim answers in all; None for no limit.
        batch_size: images a purchase.
        device: where the surrogate is trained.
        progress: called after every step.

    Returns:
        The number of queries the theft cost.

    Raises:
        TrainingError: if the method is unknown, lacks its head or cannot work on such answers, or the folder holds
            something else.
        BudgetError: if the budget runs out; what was bought is kept.
    """
    config = with_method(config, method)
    if output_kind not in KINDS:
        raise TrainingError(f"unknown kind of answers {output_kind!r}", f"one of: {', '.join(KINDS)}")
    if output_kind != "representations" and (method != "direct" or config.victim_view != "none"):
        raise TrainingError(
            f"{method} with view {config.victim_view} needs representations; the victim gives {output_kind}",
            "use --method direct --victim-view none",
        )
    if method == "access-head" and head is None:
        raise TrainingError("access-head needs the victim's projection head", "steal from a train folder")
    described = describe_data(data.name, data.images)
    record = {
        "method": method,
        "output_kind": output_kind,
        "steal": config.to_dict(),
        "data": described,
        "victim_sha256": victim_sha256,
    }
    if finished(folder, CONFIG, record):
        return int(read_json(folder / CONFIG, TrainingError, "theft").get("queries", 0))
    if (folder / CONFIG).exists():
        raise TrainingError(f"{printable(folder, 300)} holds another encoder", "choose another --out")
    store = folder / STORE
    box = BlackBox(victim, name=victim_sha256, budget=budget, batch_size=batch_size, store=store)
    surrogate = _steal(box, data, config, method, output_kind, head, {"device": device, "progress": progress})
    save_encoder(surrogate, config.arch, folder, (described["shape"][-2], described["shape"][-1]))
    write_json(
        folder / CONFIG,
        {
            "architecture": config.arch,
            "num_features": surrogate.dim,
            "queries": box.queries,
            "unique_images": box.unique_images,
            **record,
        },
    )
    store.unlink(missing_ok=True)
    return box.queries


def serve_task(victim: EncoderLike, digest: str, task: Data, output_kind: str) -> tuple[Classifier, str]:
    """Returns the victim as a provider of labels: with a linear layer fitted to a task on top (paper, section 4.4).

    Args:
        victim: the encoder; a module, not an endpoint.
        digest: what tells it from other victims.
        task: labelled images.
        output_kind: labels, posteriors or logits.

    Returns:
        The classifier, and what tells it from other ones.

    Raises:
        TrainingError: if the answers are no such kind, the images have no labels, or the victim is no module.
    """
    if output_kind not in RESPONSE_KINDS:
        raise TrainingError(f"a task serves no {output_kind}", f"--output-kind {', '.join(RESPONSE_KINDS)}")
    if task.labels is None or not isinstance(victim, nn.Module):
        raise TrainingError("a task needs labelled images and a victim at hand", "class folders, or an .npz with y")
    layer = fit_layer(victim, task.images, task.labels)
    return Classifier(victim, layer, output_kind).eval(), f"{digest}, {output_kind} of {task.name}"


def _steal(
    box: BlackBox,
    data: Data,
    config: ExtractionConfig,
    method: str,
    output_kind: str,
    head: nn.Module | None,
    how: dict[str, Any],
) -> Encoder:
    if output_kind != "representations":
        return steal_labels(box, cast(Answer, output_kind), data.images, config, **how).encoder
    if method == "recreate-head":
        recreated = HeadConfig(
            queries=config.queries, epochs=config.epochs, batch_size=config.batch_size or 256, seed=config.seed
        )
        head = recreate_head(box, data.images, recreated, progress=how["progress"])
    elif method != "access-head":
        head = None
    return extract(box, data.images, config, labels=data.labels, head=head, **how)
