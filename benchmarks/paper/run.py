"""The paper's tables, regenerated row by row beside the paper's numbers.

    python benchmarks/paper/run.py --scale cpu --work runs/paper            # every row; resumes anywhere
    python benchmarks/paper/run.py --scale cpu --tables 1 2 --work runs/paper
    python benchmarks/paper/run.py --print                                  # committed rows as Markdown; runs nothing

Scale "cpu": a 0.3 M parameter victim on 10,000 Fashion-MNIST images with the paper's public half-turn mark, queries
from Fashion-MNIST's test images, ten epochs a theft. Scale "paper": CIFAR-10, ResNet-18, 200 and 100 epochs (a GPU).
SVHN, STL-10 and ImageNet stand in the paper's columns; ours are the victim's own task and the digits as a foreign one,
so orderings are compared, not differences. One row of `benchmarks/results/paper.jsonl` is one theft, keyed by the hash
of its specification.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from rows import ROWS, Row

from attacks_for_eval.black_box import BlackBox
from attacks_for_eval.extraction import ExtractionConfig, extract
from attacks_for_eval.heads import HeadConfig, recreate_head
from attacks_for_eval.labels import Classifier, fit_layer, steal_labels
from attacks_for_eval.linear import linear_evaluation
from cli.render import progress
from ownership._audit import versions
from ownership.files import canonical_json, sha256
from ownership.images import EncoderLike, as_input, as_uint8, represent
from ownership.watermark import rotated_pairs
from watermark_training.artefacts import Loaded, load_trained, train_to
from watermark_training.config import TrainConfig
from watermark_training.data import Data, load_data
from watermark_training.train import pick_device

RESULTS = Path(__file__).parents[1] / "results" / "paper.jsonl"

SCALES: dict[str, dict[str, Any]] = {
    "cpu": {
        "data": "fashion-mnist", "private": "fashion-mnist:train[:10000]", "queries": "fashion-mnist:test",
        "arch": "small", "victim_epochs": 8, "victim_lr": 2e-3, "temperature": 0.2, "epochs": 10, "head_epochs": 10,
        "probe": 5000,
    },
    "paper": {
        "data": "cifar10", "private": "cifar10:train", "queries": "cifar10:test", "arch": "resnet18",
        "victim_epochs": 200, "victim_lr": 3e-4, "temperature": 0.07, "epochs": 100, "head_epochs": 200, "probe": 50000,
    },
}  # fmt: skip


class Bench:
    """Data and victim of one scale, made when first needed."""

    def __init__(self, scale: str, work: Path, device: str) -> None:
        self.scale, self.work, self.device = SCALES[scale], work / scale, pick_device(device)

    @cached_property
    def victim(self) -> Loaded:
        """The victim, with the paper's public mark."""
        private, s = load_data(self.scale["private"]), self.scale
        config = TrainConfig(
            arch=s["arch"], epochs=s["victim_epochs"], lr=s["victim_lr"], temperature=s["temperature"], mark="paper"
        )
        with progress() as show:
            train_to(self.work / "victim", private, config, device=self.device, progress=show)
        return load_trained(self.work / "victim")

    @cached_property
    def queries(self) -> Data:
        """What the thief asks about."""
        return load_data(self.scale["queries"])

    @cached_property
    def tasks(self) -> dict[str, tuple[Data, Data]]:
        """Labelled training and test images: the victim's own task, and the digits."""
        side, n = self.queries.images.shape[-1], self.scale["probe"]
        own = load_data(f"{self.scale['data']}:train[:{n}]")
        return {
            self.scale["data"]: (own, self.queries),
            "digits": (load_data("digits[:1000]", size=side), load_data("digits[1000:]", size=side)),
        }

    def accuracies(self, encoder: EncoderLike) -> dict[str, dict[str, Any]]:
        """Top-1 of linear evaluation on each task, with its interval."""
        out = {}
        for name, (learnt, held_out) in self.tasks.items():
            assert learnt.labels is not None
            assert held_out.labels is not None
            r = linear_evaluation(encoder, (learnt.images, learnt.labels), (held_out.images, held_out.labels))
            out[name] = {"accuracy": r.accuracy, "interval": list(r.confidence_interval)}
        return out

    def watermark_success(self, encoder: EncoderLike) -> float:
        """Accuracy of the victim's predictor on rotated private images, as in the paper."""
        key, predictor = self.victim.key, self.victim.predictor
        assert key is not None
        assert predictor is not None
        images = load_data(self.scale["private"]).images[:4000]
        views, labels = rotated_pairs(as_input(images), key, torch.Generator().manual_seed(0))
        with torch.no_grad():
            logits = predictor(represent(encoder, as_uint8(views)))
        return float((logits.argmax(1) == labels).float().mean())

    def run(self, row: Row) -> dict[str, Any]:
        """Makes one theft and measures it."""
        start = time.monotonic()
        encoder, extra = METHODS[row.method](self, row)
        measured = {"accuracy": self.accuracies(encoder), **extra}
        if row.method != "labels":
            measured["watermark_success"] = self.watermark_success(encoder)
        return {**measured, "seconds": round(time.monotonic() - start, 1)}


def _config(bench: Bench, row: Row, **changes: Any) -> ExtractionConfig:
    s = bench.scale
    spec = {"arch": s["arch"], "epochs": s["epochs"], "queries": 9000, **row.theft, **changes}
    # the same number of steps for few queries, up to ten times as many passes
    spec["epochs"] = min(10 * spec["epochs"], max(spec["epochs"], spec["epochs"] * 9000 // spec["queries"]))
    return ExtractionConfig(**spec)


def _victim(bench: Bench, row: Row) -> tuple[EncoderLike, dict[str, Any]]:
    return bench.victim.encoder, {}


def _direct(bench: Bench, row: Row) -> tuple[EncoderLike, dict[str, Any]]:
    box = BlackBox(bench.victim.encoder, **row.box)
    data = bench.queries
    head = None
    if row.method == "access-head":
        head = bench.victim.projection_head
    elif row.method == "recreate-head":
        head = recreate_head(box, data.images, HeadConfig(epochs=bench.scale["head_epochs"]))
    stolen = extract(box, data.images, _config(bench, row), labels=data.labels, head=head, device=bench.device)
    return stolen, {"queries": box.queries, "unique_images": box.unique_images}


def _labels(bench: Bench, row: Row) -> tuple[EncoderLike, dict[str, Any]]:
    learnt, _ = bench.tasks[bench.scale["data"]]
    assert learnt.labels is not None
    assert bench.queries.labels is not None
    layer = fit_layer(bench.victim.encoder, learnt.images, learnt.labels)
    answer = row.theft["answer"]
    victim = Classifier(bench.victim.encoder, layer, answer).eval()  # type: ignore[arg-type]
    # the thief's queries are the first 5,000 test images; the rest judge the classifier as stolen
    asked, rest = bench.queries.images[:5000], slice(5000, None)
    config = ExtractionConfig(arch=bench.scale["arch"], queries=5000, epochs=2 * bench.scale["epochs"])
    stolen = steal_labels(BlackBox(victim), answer, asked, config)
    no_fine_tune = stolen.accuracy(bench.queries.images[rest], bench.queries.labels[rest])
    return stolen.encoder, {"no_fine_tune": no_fine_tune, "queries": 5000}


METHODS: dict[str, Callable[[Bench, Row], tuple[EncoderLike, dict[str, Any]]]] = {
    "victim": _victim,
    "direct": _direct,
    "recreate-head": _direct,
    "access-head": _direct,
    "labels": _labels,
}


def stored() -> list[dict[str, Any]]:
    """Returns the committed rows."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def print_tables() -> None:
    """Prints committed rows as Markdown, the paper's numbers beside ours."""
    rows = stored()
    for scale in SCALES:
        for table in sorted({r["table"] for r in rows if r["scale"] == scale}, key=int):
            mine = [r for r in rows if (r["scale"], r["table"]) == (scale, table)]
            tasks = list(mine[0]["measured"]["accuracy"])
            print(f"\n### Table {table}, scale {scale}\n\n{mine[0]['paper_columns']} in the paper\n")
            print(
                f"| row | paper | {' | '.join(tasks)} | watermark success | victim answers |\n|---|---|---|---|---|---|"
            )
            for r in mine:
                m = r["measured"]
                cells = [f"{100 * m['accuracy'][t]['accuracy']:.1f}" for t in tasks]
                mark = f"{100 * m['watermark_success']:.1f}" if "watermark_success" in m else "–"
                name = r["name"] + (f" (as stolen {100 * m['no_fine_tune']:.1f})" if "no_fine_tune" in m else "")
                print(f"| {name} | {r['paper']} | {' | '.join(cells)} | {mark} | {m.get('queries', '–')} |")


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=tuple(SCALES), default="cpu")
    parser.add_argument("--tables", nargs="+", default=None, help="all if not given")
    parser.add_argument("--work", type=Path, default=Path("runs/paper"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--print", action="store_true", dest="show")
    arguments = parser.parse_args()
    if arguments.show:
        print_tables()
        return
    bench = Bench(arguments.scale, arguments.work, arguments.device)
    for row in ROWS:
        if arguments.tables is not None and row.table not in arguments.tables:
            continue
        spec = {"scale": bench.scale, "method": row.method, "theft": row.theft, "box": row.box}
        key = sha256(canonical_json({**spec, "table": row.table, "name": row.name}))[:16]
        if any(r["key"] == key for r in stored()):
            continue
        record = {
            "key": key, "scale": arguments.scale, "table": row.table, "name": row.name, "paper": row.paper,
            "paper_columns": row.columns, "spec": spec, "measured": bench.run(row), "versions": versions(),
        }  # fmt: skip
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as f:
            f.write(json.dumps(record, sort_keys=True) + "\n")
        print(f"table {row.table}, {row.name}: {record['measured']}", flush=True)


if __name__ == "__main__":
    main()
