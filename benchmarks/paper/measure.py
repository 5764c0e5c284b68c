"""How a cell is measured: the extraction, then linear evaluation, watermark success and distance of the surrogate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from attacks_for_eval.choices import METHODS
from attacks_for_eval.defences.similarity import SimilarityNoiseBlackBox
from attacks_for_eval.extraction.black_box import BlackBox, Perturbation
from attacks_for_eval.extraction.config import with_method
from attacks_for_eval.extraction.extract import extract
from attacks_for_eval.extraction.heads import HeadConfig, recreate_head
from attacks_for_eval.extraction.labels import Classifier, extract_classifier, fit_layer
from benchmarks.common.rows import Row
from benchmarks.paper.bench import Bench, data
from benchmarks.paper.cells import Cell
from benchmarks.paper.defences import benign_threshold, detection, rates
from ownership.encoders.images import EncoderLike, as_input, as_uint8
from watermark_training.device import seeded_architecture


def _victim(bench: Bench, cell: Cell) -> tuple[EncoderLike, Row]:
    return bench.victim(cell).encoder, {}


def _random(bench: Bench, cell: Cell) -> tuple[EncoderLike, Row]:
    return bench.encoder(cell.victim, seed=1, watermark="none").encoder, {}


def _untrained(bench: Bench, cell: Cell) -> tuple[EncoderLike, Row]:
    """Random weights; only its normalisation has seen images."""
    encoder = seeded_architecture(bench.scale["arch"], torch.Generator().manual_seed(cell.seed)).train()
    with torch.no_grad():
        for chunk in torch.split(data(bench.scale["private"][cell.victim]).images[:5000], 256):
            encoder(as_input(chunk))
    return encoder.eval(), {}


def _box(bench: Bench, cell: Cell) -> BlackBox:
    victim, options = bench.victim(cell), dict(cell.box)
    metric = options.pop("monitor", None)
    if metric is None or not options["noise"]:
        return BlackBox(victim.encoder, perturbation=Perturbation(**options))
    assert victim.projection_head is not None
    threshold = benign_threshold(bench, cell, metric)
    return SimilarityNoiseBlackBox(
        victim.encoder, head=victim.projection_head, metric=metric, threshold=threshold, noise=options["noise"]
    )


def _direct(bench: Bench, cell: Cell) -> tuple[EncoderLike, Row]:
    box, queries, extra = _box(bench, cell), data(cell.source), {}
    config, head = with_method(bench.config(cell), cell.method), None
    if cell.method == "access-head":
        head = bench.victim(cell).projection_head
    elif cell.method == "recreate-head":
        n = bench.scale["batch_size"] or 256
        head = recreate_head(
            box, queries.images, HeadConfig(queries=config.queries, epochs=bench.scale["head_epochs"], batch_size=n)
        )
    surrogate = extract(box, queries.images, config, labels=queries.labels, head=head, device=bench.device)
    if cell.box:
        user = _box(bench, cell)  # another account, with its own history
        honest = bench.accuracies(lambda x: user(as_uint8(x)), ("cifar10",))
        extra["legitimate"] = honest["cifar10"]["accuracy"]
        if isinstance(box, SimilarityNoiseBlackBox) and isinstance(user, SimilarityNoiseBlackBox):
            extra["flagged"] = {"legitimate": user.flagged / user.queries, "adversary": box.flagged / box.queries}
    return surrogate, {"queries": box.queries, "unique_images": box.unique_images, **extra}


def _labels(bench: Bench, cell: Cell) -> tuple[EncoderLike, Row]:
    victim, (learnt, held_out) = bench.victim(cell), bench.tasks()["cifar10"]
    responses = cell.extraction["output_kind"]
    assert isinstance(victim.encoder, nn.Module)
    box = BlackBox(Classifier(victim.encoder, fit_layer(victim.encoder, *learnt), responses).eval())
    config = bench.config(Cell(method="labels", seed=cell.seed))
    extracted = extract_classifier(box, responses, data(cell.source).images, config, device=bench.device)
    extra = {
        "extracted classifier": extracted.accuracy(*held_out),
        "queries": box.queries,
        "unique_images": box.unique_images,
    }
    return extracted.encoder, extra


def _two_stage(bench: Bench, cell: Cell) -> tuple[EncoderLike, Row]:
    """Extract the victim, then the surrogate with other images, which the victim never sees."""
    first, measured = _direct(bench, Cell(method="direct", extraction={"loss": "infonce"}))
    second = bench.config(Cell(method="direct", extraction={"loss": "mse"}, seed=1))
    return extract(BlackBox(first), data("cifar10:train[35000:50000]").images, second, device=bench.device), measured


MEASURES: dict[str, Callable[[Bench, Cell], tuple[EncoderLike | None, Row]]] = {
    **dict.fromkeys(METHODS, _direct),
    "victim": _victim,
    "random": _random,
    "untrained": _untrained,
    "labels": _labels,
    "two-stage": _two_stage,
    "rates": rates,
    "detection": detection,
}
"""Method of a cell, an extraction attack or another -> encoder to evaluate, or None, and what else was measured."""
