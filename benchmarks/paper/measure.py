"""How a cell is measured: the extraction, then linear evaluation, watermark success and distance of the surrogate."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from attacks_for_eval.defences.detection import MEASURES as DETECTORS
from attacks_for_eval.defences.detection import History, HistoryMonitor, alarms
from attacks_for_eval.defences.similarity import SimilarityNoiseBlackBox, nearest, similarity_error_rates
from attacks_for_eval.evaluation.linear import linear_evaluation
from attacks_for_eval.extraction.black_box import BlackBox, Perturbation
from attacks_for_eval.extraction.config import ExtractionConfig, with_method
from attacks_for_eval.extraction.extract import extract
from attacks_for_eval.extraction.heads import HeadConfig, recreate_head
from attacks_for_eval.extraction.labels import Classifier, extract_classifier, fit_layer
from benchmarks.common.rows import Row
from benchmarks.paper.cells import Cell
from ownership.encoders.images import EncoderLike, as_input, as_uint8, represent
from ownership.evidence.similarity import raw_l2
from watermark_training.augment import simclr_view
from watermark_training.config import TrainConfig
from watermark_training.data import Data, load_data
from watermark_training.device import pick_device, seeded_architecture
from watermark_training.loaded_encoder import LoadedEncoder, load_trained
from watermark_training.train_folder import train_to
from watermark_training.watermark import watermark_rate

SIDE = 32
SPLITS = {
    "cifar100": ("cifar100:test", "cifar100:test"),  # 8,000 to learn from
    "fashion-mnist": ("fashion-mnist:train[50000:55000]", "fashion-mnist:test[8000:]"),
    "stl10": ("stl10:train", "stl10:test"),
    "svhn": ("svhn:train", "svhn:test[9000:]"),
}
"""Task -> labelled images to learn from, and to test on; no attacker queries the latter."""
BENIGN_ALARMS = 0.05
"""Share of an honest user's queries that the monitor may flag; its threshold is set on other images to give this."""


@cache
def data(description: str) -> Data:
    """Images in one size and colour; CIFAR-100, which is stored by class, in a fixed random order."""
    loaded = load_data(description, size=SIDE)
    images, labels = loaded.images.expand(-1, 3, -1, -1).contiguous(), loaded.labels
    if description.startswith("cifar100") and labels is not None:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        images, labels = images[order], labels[order]
    return Data(name=description, images=images, labels=labels)


class Bench:
    """Victims and tasks of one scale, made when first needed."""

    def __init__(self, scale: Row, work: Path, device: str) -> None:
        self.scale, self.work, self.device = scale, work, pick_device(device)

    def encoder(self, name: str, *, seed: int, watermark: str) -> LoadedEncoder:
        """An encoder trained on a victim's images; one process trains, others wait for it."""
        folder = self.work / f"{name}-{seed}-{watermark}"
        config = TrainConfig(arch=self.scale["arch"], seed=seed, watermark=watermark, **self.scale["victim"])  # type: ignore[arg-type]
        claimed = folder.with_suffix(".training")
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not (folder / "config.json").is_file():
            try:
                claimed.touch(exist_ok=False)
            except FileExistsError:
                print(f"waiting for {folder}; delete {claimed} if no one trains it", flush=True)
                while not (folder / "config.json").is_file():
                    time.sleep(5)
            else:
                train_to(folder, data(self.scale["private"][name]), config, device=self.device)
                claimed.unlink()
        return load_trained(folder)

    def victim(self, cell: Cell) -> LoadedEncoder:
        """The victim, with the paper's public watermark."""
        return self.encoder(cell.victim, seed=0, watermark="paper")

    def config(self, cell: Cell) -> ExtractionConfig:
        """Return the extraction of a cell: the same number of steps for few queries, up to `max_epochs`."""
        s = self.scale
        spec = {
            "queries": s["usual_queries"],
            "arch": s["arch"],
            "batch_size": s["batch_size"],
            "lr": s["lr"],
            "seed": cell.seed,
        }
        spec |= cell.extraction
        spec["epochs"] = max(1, min(s["max_epochs"], s["epochs"] * s["usual_queries"] // spec["queries"]))
        return ExtractionConfig(**spec)

    @cache  # noqa: B019  (one bench a process)
    def tasks(self) -> dict[str, tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]:
        """Name -> labelled images to learn from, and to test on."""
        names = self.scale["tasks"]
        pairs = {
            "cifar10": (self.scale["labelled"], self.scale["held_out"]),
            names["second"]: SPLITS[names["second"]],
            names["foreign"]: SPLITS[names["foreign"]],
        }
        out = {}
        for name, (learnt, held_out) in pairs.items():
            a, b = data(learnt), data(held_out)
            assert a.labels is not None
            assert b.labels is not None
            cut = (slice(0, 8000), slice(8000, None)) if learnt == held_out else (slice(None), slice(None))
            out[name] = ((a.images[cut[0]], a.labels[cut[0]]), (b.images[cut[1]], b.labels[cut[1]]))
        return out

    def accuracies(self, encoder: EncoderLike, names: tuple[str, ...] | None = None) -> dict[str, Row]:
        """Top-1 of linear evaluation on each task, with its interval."""
        out = {}
        for name, (learnt, held_out) in self.tasks().items():
            if names is None or name in names:
                r = linear_evaluation(encoder, learnt, held_out)
                out[name] = {"accuracy": r.accuracy, "interval": list(r.confidence_interval)}
        return out

    def measure(self, attack: Callable[[Bench, Cell], tuple[EncoderLike | None, Row]], cell: Cell) -> Row:
        """Makes one cell and measures it."""
        start = time.monotonic()
        encoder, measured = attack(self, cell)
        if encoder is not None:
            measured["accuracy"] = self.accuracies(encoder)
            measured |= self.against_victim(encoder, cell)
        return {**measured, "seconds": round(time.monotonic() - start, 1)}

    def against_victim(self, encoder: EncoderLike, cell: Cell) -> dict[str, float]:
        """Watermark success and raw l2 distance, both on the victim's training images."""
        victim = self.victim(cell)
        assert victim.key is not None
        assert victim.predictor is not None
        images = data(self.scale["private"][cell.victim]).images[: self.scale["probe_private"]]
        a, b = (represent(e, images).double().numpy() for e in (victim.encoder, encoder))
        if a.shape[1] != b.shape[1]:
            return {}
        rate = watermark_rate(encoder, victim.predictor, victim.key, images)
        return {"watermark": rate, "l2": float(raw_l2(a, b).mean())}


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
    threshold = _benign_threshold(bench, cell, metric)
    return SimilarityNoiseBlackBox(
        victim.encoder, head=victim.projection_head, metric=metric, threshold=threshold, noise=options["noise"]
    )


def _benign_threshold(bench: Bench, cell: Cell, metric: str) -> float:
    """The threshold that flags `BENIGN_ALARMS` of an honest user's queries, set on images that nothing else uses."""
    victim = bench.victim(cell)
    assert victim.projection_head is not None
    with torch.no_grad():
        z = victim.projection_head(represent(victim.encoder, data("cifar10:train[35000:50000]").images))
    near = torch.cat([nearest(z[i : i + 1], z[:i], metric) for i in range(1, len(z), 10)])  # type: ignore[arg-type]
    return float(near.quantile(BENIGN_ALARMS if metric == "l2" else 1 - BENIGN_ALARMS))


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


def _rates(bench: Bench, cell: Cell) -> tuple[None, Row]:
    """Error rates at the thresholds that give the paper's false positive rates on other images."""
    wanted = {"l2": [0.05, 0.12, 0.28], "cosine": [0.07, 0.155, 0.31]}[cell.box["metric"]]
    victim, generator = bench.victim(cell), torch.Generator().manual_seed(0)

    def vectors(images: Tensor) -> Tensor:
        y = represent(victim.encoder, as_uint8(simclr_view(as_input(images), generator)))
        assert victim.projection_head is not None
        with torch.no_grad():
            z: Tensor = victim.projection_head(y) if cell.box["head"] else y
        return z

    tuning, judging = data("cifar10:train[35000:37000]").images, data("cifar10:test").images
    a, b = vectors(tuning[:1000]), vectors(tuning[1000:])
    metric = cell.box["metric"]
    between = (
        torch.cdist(a, b).flatten() if metric == "l2" else torch.cosine_similarity(a[:, None], b[None], dim=2).flatten()
    )
    between = torch.from_numpy(np.sort(between.numpy()))
    rates, (first, second) = [], (vectors(judging), vectors(judging))
    for share in wanted:
        place = share if metric == "l2" else 1 - share
        threshold = float(between[int(place * (len(between) - 1))])
        r = similarity_error_rates(first, second, metric, threshold)
        rates.append({"threshold": threshold, "false_positive": r.false_positive, "false_negative": r.false_negative})
    return None, {"rates": rates}


def _detection(bench: Bench, cell: Cell) -> tuple[None, Row]:
    """Alarms over histories of 1,000 queries: honest users of three classes each, and attackers of five kinds.

    Twenty honest users set the limits, twenty others show the false alarms; every account but the last attacker's is
    alone, so that accounts resemble each other only by their queries.
    """
    victim, generator, n = bench.victim(cell), torch.Generator().manual_seed(0), 1000
    assert victim.projection_head is not None
    threshold = _benign_threshold(bench, cell, "cosine")

    def vectors(images: Tensor) -> Tensor:
        assert victim.projection_head is not None
        with torch.no_grad():
            z: Tensor = victim.projection_head(represent(victim.encoder, images))
        return z

    def views(images: Tensor) -> Tensor:
        return as_uint8(simclr_view(as_input(images), generator))

    benign, others = data("cifar10:train[25000:50000]"), data("cifar10:test").images
    assert benign.labels is not None
    x = vectors(benign.images)
    users = []
    for _ in range(40):
        wanted = torch.randperm(10, generator=generator)[:3]
        rows = torch.isin(benign.labels, wanted).nonzero()[:, 0]
        users.append(x[rows[torch.randperm(len(rows), generator=generator)[:n]]])
    attackers = {
        "plain images": [vectors(others[:n])],
        "five views of each of 200 images": [vectors(views(others[:200].repeat(5, 1, 1, 1)))],
        "images of another distribution": [vectors(data("fashion-mnist:train").images[:n])],
        "images of three classes": [users.pop()],
        "views of 1,000 images, an account an epoch": [vectors(views(others[:n])) for _ in range(5)],
    }

    def histories(accounts: list[Tensor]) -> list[History]:
        monitor = HistoryMonitor(metric="cosine", threshold=threshold, center=x.mean(0))
        for i, queries in enumerate(accounts):
            monitor.observe(str(i), queries)
        return [monitor.history(str(i)) for i in range(len(accounts))]

    honest = [histories([user])[0] for user in users]
    limits, rest = honest[:20], honest[20:]
    found = {}
    for name, accounts in attackers.items():
        history = histories(accounts)[-1]
        values = {m: round(history.measure(m), 3) for m in DETECTORS}
        found[name] = {"alarms": list(alarms(history, limits)), **values}
    false = {m: sum(m in alarms(h, limits) for h in rest) / len(rest) for m in DETECTORS}
    return None, {"detection": {"threshold": threshold, "false_alarms": false, "attackers": found}}


MEASURES: dict[str, Callable[[Bench, Cell], tuple[EncoderLike | None, Row]]] = {
    "victim": _victim,
    "random": _random,
    "untrained": _untrained,
    "labels": _labels,
    "two-stage": _two_stage,
    "rates": _rates,
    "detection": _detection,
    **dict.fromkeys(
        (
            "direct",
            "recreate-head",
            "access-head",
            "stolen-encoder",
            "cont-steal",
            "rotated-queries",
            "rotation-invariant",
        ),
        _direct,
    ),
}
"""Name of a cell's method -> encoder to evaluate, or None, and what else was measured."""
