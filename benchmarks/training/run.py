"""Measure watermarked training: its speed, its cost in accuracy, its memory.

    python -m benchmarks.training run speed --rounds 3       # images/s beside lightly's SimCLR example
    TURNMARK_DATA=runs/data python -m benchmarks.training run watermark --data fashion-mnist --seed 0
    TURNMARK_DATA=runs/data python -m benchmarks.training run key --data fashion-mnist --seed 0
    python -m benchmarks.training run memory --images 1000000
    python -m benchmarks.training run precision              # a training step in bfloat16 over one in float32
    python -m benchmarks.training run augment --rounds 20    # views by ours, by kornia, by torchvision

`watermark`: a watermarked victim and its plain twin are trained on the same 10,000 images (CIFAR-10: 20,000) for as
many epochs, and compared by linear probes; two surrogates are extracted with 10,000 other images, none rotated; the
watermark is tested on test images that no model was trained on. Settings were chosen on the first 14,000 training
images (Fashion-MNIST) or on victims of the last 20,000, tested on training images (CIFAR-10); the images here are
others.
`key`: the same with the keyed watermark, of strength `--keyed-weight`. The plain twin is trained once a seed. The pool
of the key, which are its probes, are the first 2,000 test images.
`speed`: one network (ResNet-18, CIFAR form), batch 256, as many threads as there are. lightly's loop: its SimCLR
transform on PIL images in a DataLoader with as many workers as cores, float32, its projection head and loss.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attacks_for_eval.evaluation.linear import linear_evaluation
from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from attacks_for_eval.seeded_key import seeded_key
from benchmarks.common.machine import cores, cpu, versions
from benchmarks.common.rows import Row, RowStore
from benchmarks.training.speed import run_augment, run_precision, run_speed
from ownership.encoders.images import EncoderLike, represent
from ownership.io.canonical import canonical_json, sha256
from ownership.keyed.drawn import check_encoder
from ownership.watermark import WatermarkKey, secret_key
from watermark_training.callbacks import Callbacks
from watermark_training.config import TrainConfig
from watermark_training.data import Data, load_data
from watermark_training.training import Trained, train
from watermark_training.watermark import watermark_rate

ROWS = RowStore("training")
WATERMARKED = TrainConfig(
    arch="small", epochs=30, batch_size=256, lr=2e-3, temperature=0.2, min_crop=0.2, watermark="secret"
)
EXTRACTION = ExtractionConfig(arch="small", queries=10_000, epochs=8, batch_size=256, lr=2e-3)
PARTS = {  # data -> victim's images, attacker's queries, labelled images of the linear probe
    "fashion-mnist": ("train[14000:24000]", "train[24000:34000]", "train[34000:39000]"),
    "cifar10": ("train[0:20000]", "train[20000:30000]", "train[30000:35000]"),
}


def trained_on(data: str) -> TrainConfig:
    """Return the configuration of a data set's victims: CIFAR-10 has twice the images, so fewer epochs."""
    return replace(WATERMARKED, epochs=20) if data == "cifar10" else WATERMARKED


@dataclass(frozen=True, slots=True)
class Measured:
    """A data set's parts, and how well encoders do on them."""

    victim: Tensor
    queries: Tensor
    learn: Data
    test: Data

    @classmethod
    def of(cls, data: str) -> Measured:
        """Load a data set."""
        victim, queries, learn = (load_data(f"{data}:{part}") for part in PARTS[data])
        return cls(victim.images, queries.images, learn, load_data(f"{data}:test"))

    @property
    def probes(self) -> Tensor:
        """Test images that watermarks are tested on; linear probes are tested on the others."""
        return self.test.images[:2000]

    def linear_probe(self, encoder: EncoderLike) -> float:
        """Return the accuracy of a linear probe."""
        assert self.learn.labels is not None
        assert self.test.labels is not None
        learn, test = (self.learn.images, self.learn.labels), (self.test.images[2000:], self.test.labels[2000:])
        return linear_evaluation(encoder, learn, test).accuracy

    def trained(self, config: TrainConfig, **secret: Any) -> tuple[Trained, Row]:
        """Return a victim or its twin, and its seconds and linear probe."""
        name = "plain" if config.watermark == "none" else "watermarked"
        start = time.perf_counter()
        found = train(self.victim, config, **secret)
        seconds = round(time.perf_counter() - start, 1)
        return found, {f"{name}_seconds": seconds, f"{name}_probe": self.linear_probe(found.encoder)}

    def surrogates(self, victim: EncoderLike, seed: int) -> Iterator[tuple[str, EncoderLike]]:
        """Yield surrogates by name."""
        for loss in ("mse", "infonce"):
            config = replace(EXTRACTION, loss=loss, seed=seed)
            yield f"surrogate_{loss}", extract(BlackBox(victim), self.queries, config)


def run_watermark(data: str, seed: int) -> Row:
    """Train a watermarked victim and its plain twin, extract the victim twice, measure all."""
    parts, base = Measured.of(data), replace(trained_on(data), seed=seed)
    key: WatermarkKey = secret_key(torch.Generator().manual_seed(1000 + seed))
    found, row = parts.trained(base, key=key)
    row |= parts.trained(replace(base, watermark="none"))[1]
    assert found.predictor is not None
    rate = partial(watermark_rate, predictor=found.predictor, key=key, images=parts.probes, seed=seed)
    encoders: dict[str, EncoderLike] = {"victim": found.encoder, **dict(parts.surrogates(found.encoder, seed))}
    return row | {name: rate(encoder) for name, encoder in encoders.items()}


def run_key(data: str, seed: int, weight: float) -> Row:
    """Train a victim with a keyed watermark and its plain twin, extract the victim twice, compute the key tests."""
    parts, base = Measured.of(data), replace(trained_on(data), seed=seed)
    material = seeded_key(f"training {data} {seed}", parts.probes)

    def tested(encoder: EncoderLike) -> Row:
        result = check_encoder(material, represent(encoder, material.probes).double().numpy())
        return {"statistic": result.statistic, "pvalue": result.pvalue}

    row = _plain_of_another_weight(data, seed)
    if not row:
        plain, row = parts.trained(replace(base, watermark="none"))
        row["plain"] = tested(plain.encoder)
    found, more = parts.trained(replace(base, watermark="keyed", keyed_weight=weight), material=material)
    row |= more | {"victim": tested(found.encoder)}
    return row | {name: tested(surrogate) for name, surrogate in parts.surrogates(found.encoder, seed)}


def _plain_of_another_weight(data: str, seed: int) -> Row:
    """Return what a row of another weight measured of the same twin; empty if there is none."""

    def twin(trained: Row) -> Row:
        return {name: value for name, value in trained.items() if name not in ("watermark", "keyed_weight")}

    same = {"what": "key", "data": data, "seed": seed, "victim_images": PARTS[data][0]}
    for row in ROWS.load():
        if same.items() <= row.items() and twin(row["train"]) == twin(trained_on(data).to_dict()):
            return {name: row[name] for name in ("plain_seconds", "plain_probe", "plain")}
    return {}


def _anonymous_mib() -> float:
    """Return this process's memory that no file backs, in MiB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) / 1024


def run_memory(count: int) -> Row:
    """Train some steps on few and on many mapped images; return the largest memory beyond the file of each."""
    peaks = []
    for n in (4096, 4096, count):  # the first warms up: allocators keep what they had
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.npy"
            stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, 3, 32, 32))
            for part in range(0, n, 50_000):
                stored[part : part + 50_000] = np.random.default_rng(part).integers(
                    0, 256, stored[part : part + 50_000].shape, dtype=np.uint8
                )
            del stored
            peak = [0.0]

            def interim(_what: str, done: int, _total: int, peak: list[float] = peak) -> None:
                peak[0] = max(peak[0], _anonymous_mib())
                if done >= 16:
                    raise KeyboardInterrupt

            with suppress(KeyboardInterrupt):
                train(
                    load_data(str(path)).images,
                    replace(WATERMARKED, arch="tiny", epochs=1),
                    callbacks=Callbacks(progress=interim),
                )
            peaks.append(round(peak[0], 1))
    few, many = peaks[1:]
    return {
        "images": count,
        "file_mib": round(count * 3072 / 2**20),
        "peak_mib": [few, many],
        "more_mib": round(many - few, 1),
    }


def keep(store: RowStore, what: str, config: Row, measured: Row) -> None:
    """Replace the row of this configuration."""
    key = sha256(canonical_json({"what": what, **config}))[:16]
    row = {"key": key, "what": what, **config, **measured, "cores": cores(), "versions": versions()}
    store.replace([row], lambda r: r["key"])
    print(json.dumps(row))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("what", choices=("speed", "watermark", "key", "memory", "precision", "augment"))
    parser.add_argument("--data", choices=PARTS, default="fashion-mnist")
    parser.add_argument("--seed", type=int, default=0)
    weight = "of the keyed watermark; several give the curve of its price"
    parser.add_argument("--keyed-weight", type=float, default=WATERMARKED.keyed_weight, help=weight)
    parser.add_argument("--steps", type=int, default=6, help="steps of a round; the first is not timed (at least 2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1_000_000)


def run(arguments: argparse.Namespace) -> None:
    """Measure and replace one row."""
    if arguments.what in ("watermark", "key"):
        trained = trained_on(arguments.data)
        measure = run_watermark
        if arguments.what == "key":
            trained = replace(trained, watermark="keyed", keyed_weight=arguments.keyed_weight)
            measure = partial(run_key, weight=arguments.keyed_weight)
        config: Row = {"data": arguments.data, "seed": arguments.seed, "extraction": asdict(EXTRACTION)}
        config |= {"train": trained.to_dict(), "victim_images": PARTS[arguments.data][0]}
        keep(ROWS, arguments.what, config, measure(arguments.data, arguments.seed))
    elif arguments.what == "memory":
        keep(ROWS, "memory", {"count": arguments.images}, run_memory(arguments.images))
    else:
        config = {"rounds": arguments.rounds, "cpu": cpu()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if arguments.what == "speed":
                measured = run_speed(max(2, arguments.steps), arguments.rounds)
            else:
                measured = (run_augment if arguments.what == "augment" else run_precision)(arguments.rounds)
        keep(ROWS, arguments.what, config, measured)
