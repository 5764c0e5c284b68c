"""An extraction attack as a folder: train a surrogate of a victim and write it, with every query counted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig, with_method
from attacks_for_eval.extraction.extract import extract
from attacks_for_eval.extraction.heads import HeadConfig, recreate_head
from attacks_for_eval.extraction.labels import (
    CLASSIFIER_OUTPUTS,
    Classifier,
    extract_classifier,
    fit_layer,
)
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike
from ownership.errors import TrainingError
from ownership.io.files import finished, read_json, write_bytes, write_json
from ownership.io.progress import Progress, silent
from ownership.io.text import printable
from watermark_training.data import Data
from watermark_training.encoder_files import ONNX, onnx_bytes, save_encoder
from watermark_training.loaded_encoder import CONFIG, LoadedEncoder, load_trained, trainable
from watermark_training.train_folder import describe_data
from watermark_training.unfinished import unfinished

OUTPUT_KINDS = ("representations", *CLASSIFIER_OUTPUTS)
"""What a victim returns, as the attacker declares it."""

STORE = "responses.sqlite"


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Victim:
    """What an attacker can reach of a victim.

    Attributes:
        encoder: answers images; a module, or an endpoint.
        name: SHA-256 of its file, or its URL; recorded with the surrogate.
        output_kind: what it returns (`OUTPUT_KINDS`).
        projection_head: the victim's own, which the method "access-head" needs.
        budget: most queries it answers in all; None for no limit.
        batch_size: images in one request.
    """

    encoder: EncoderLike
    name: str
    output_kind: str = "representations"
    projection_head: nn.Module | None = None
    budget: int | None = None
    batch_size: int = 256

    @classmethod
    def of(cls, loaded: LoadedEncoder) -> Victim:
        """Return a loaded encoder as a victim."""
        return cls(encoder=loaded.encoder, name=loaded.sha256, projection_head=loaded.projection_head)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionFolder:
    """A finished extraction.

    Attributes:
        path: the folder.
        created: whether this call ran the extraction; False if it was finished already.
        queries: queries that the victim answered, repeats included.
        unique_images: different images among them.
    """

    path: Path
    created: bool
    queries: int
    unique_images: int

    def load(self) -> LoadedEncoder:
        """Return the surrogate."""
        return load_trained(self.path)


def extract_to(
    folder: Path | str,
    victim: Victim,
    data: Data,
    config: ExtractionConfig,
    *,
    method: str = "direct",
    own: LoadedEncoder | None = None,
    onnx: bool = False,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> ExtractionFolder:
    """Extract a surrogate into a folder, unless it holds the same extraction already.

    Writes `encoder.safetensors` and `config.json` (configuration, data, victim, queries). Until the extraction is
    finished, responses are kept in `responses.sqlite`: an interrupted one continues without repeating a query.

    Args:
        folder: where to write.
        victim: what to query.
        data: images to choose the queries from.
        config: what to train and how.
        method: name in `METHODS`; its fields replace those of `config`.
        own: encoder that the attacker trained without the victim, for the methods in `OWN_ENCODER`.
        onnx: whether `encoder.onnx` is written too.
        device: where the surrogate is trained.
        progress: called after every step.

    Raises:
        TrainingError: if the method is unknown, lacks its head or cannot use such responses, or the folder holds
            something else.
        BudgetError: if the query budget is used up; the responses so far are kept.
    """
    folder = Path(folder)
    config = with_method(config, method)
    _check_method(victim, method, config)
    if config.needs_own_encoder and own is None:
        raise TrainingError(f"{method} needs an encoder of the attacker's own", "give one, --own-encoder")
    described = describe_data(data.name, data.images)
    image_shape = (described["shape"][-2], described["shape"][-1])
    record = {
        "method": method,
        "output_kind": victim.output_kind,
        "extraction": config.to_dict(),
        "data": described,
        "victim_sha256": victim.name,
        **({} if own is None else {"own_encoder_sha256": own.sha256}),
    }
    if finished(folder, CONFIG, record):
        if onnx and not (folder / ONNX).is_file():
            write_bytes(folder / ONNX, onnx_bytes(trainable(load_trained(folder))[0], image_shape))
        return _finished(folder, created=False)
    if (folder / CONFIG).exists():
        raise TrainingError(f"{printable(folder, 300)} holds another encoder", "choose another --out")
    store = folder / STORE
    with unfinished(folder, store):
        box = BlackBox(
            victim.encoder, name=victim.name, budget=victim.budget, batch_size=victim.batch_size, store=store
        )
        surrogate = _surrogate(box, data, config, method, victim, {"device": device, "progress": progress}, own)
        save_encoder(surrogate, config.arch, folder, onnx_for=image_shape if onnx else None)
        counts = {"queries": box.queries, "unique_images": box.unique_images}
        shape = {"architecture": config.arch, "num_features": surrogate.dim}
        write_json(folder / CONFIG, {**shape, **counts, **record})
        store.unlink(missing_ok=True)
    return _finished(folder, created=True)


def classifier_victim(victim: Victim, task: Data) -> Victim:
    """Return the victim as a classifier: with a linear layer fitted to a task (paper, section 4.4).

    Args:
        victim: its encoder must be a module, its `output_kind` labels, posteriors or logits.
        task: labeled images.

    Raises:
        TrainingError: if the output kind is no classifier's, the images have no labels, or the victim is an endpoint.
    """
    if victim.output_kind not in CLASSIFIER_OUTPUTS:
        raise TrainingError(
            f"a classifier does not return {victim.output_kind}", f"--output-kind {', '.join(CLASSIFIER_OUTPUTS)}"
        )
    if task.labels is None or not isinstance(victim.encoder, nn.Module):
        raise TrainingError(
            "a task needs labeled images and a victim that is a file", "give class folders, or an .npz with y"
        )
    layer = fit_layer(victim.encoder, task.images, task.labels)
    classifier = Classifier(victim.encoder, layer, victim.output_kind).eval()
    return replace(victim, encoder=classifier, name=f"{victim.name}, {victim.output_kind} of {task.name}")


def _check_method(victim: Victim, method: str, config: ExtractionConfig) -> None:
    if victim.output_kind not in OUTPUT_KINDS:
        raise TrainingError(f"unknown output kind {victim.output_kind!r}", f"one of: {', '.join(OUTPUT_KINDS)}")
    if victim.output_kind != "representations" and (method != "direct" or config.victim_view != "none"):
        raise TrainingError(
            f"{method} with view {config.victim_view} needs representations; the victim returns {victim.output_kind}",
            "use --method direct --victim-view none",
        )
    if method == "access-head" and victim.projection_head is None:
        raise TrainingError("access-head needs the victim's projection head", "give a train folder as the victim")


def _finished(folder: Path, *, created: bool) -> ExtractionFolder:
    stored = read_json(folder / CONFIG, TrainingError, "extraction")
    counts = {name: int(stored.get(name, 0)) for name in ("queries", "unique_images")}
    return ExtractionFolder(path=folder, created=created, **counts)


def _surrogate(
    box: BlackBox,
    data: Data,
    config: ExtractionConfig,
    method: str,
    victim: Victim,
    how: dict[str, Any],
    own: LoadedEncoder | None,
) -> Encoder:
    if victim.output_kind in CLASSIFIER_OUTPUTS:
        return extract_classifier(box, victim.output_kind, data.images, config, **how).encoder
    head = victim.projection_head if method == "access-head" else None
    if method == "recreate-head":
        recreated = HeadConfig(
            queries=config.queries, epochs=config.epochs, batch_size=config.batch_size or 256, seed=config.seed
        )
        head = recreate_head(box, data.images, recreated, progress=how["progress"])
    attackers = None if own is None else own.encoder
    return extract(box, data.images, config, labels=data.labels, head=head, own=attackers, **how)
