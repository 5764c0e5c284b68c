"""The models of one scale, and what every surrogate is measured by: accuracy, watermark success, distance."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from attacks_for_eval.evaluation.linear import linear_evaluation
from attacks_for_eval.extraction.config import ExtractionConfig
from benchmarks.common.rows import Row
from benchmarks.paper.cells import Cell
from ownership.encoders.images import EncoderLike, represent
from ownership.evidence.similarity import raw_l2
from watermark_training.config import TrainConfig
from watermark_training.data import Data, load_data
from watermark_training.device import pick_device
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
