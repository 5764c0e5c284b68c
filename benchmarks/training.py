"""What watermarked training costs and what the mark is worth: the tables of docs/results.md, "Training".

    python benchmarks/training.py speed --rounds 3      # images/s beside lightly's SimCLR example; mark on, mark off
    TURNMARK_DATA=runs/data python benchmarks/training.py mark --data fashion-mnist --seed 0
                                                        # marked and plain twin, linear probe, surrogates' mark
    python benchmarks/training.py memory --images 1000000
    python benchmarks/training.py precision             # a training step in bfloat16 over one in float32
    python benchmarks/training.py augment --rounds 20   # views by ours, by kornia, by torchvision
    python benchmarks/training.py --print               # the tables from committed rows

`mark`: victim and plain twin see the same 10,000 images (CIFAR-10: 20,000) in the same passes; a thief asks 10,000
others, none rotated; the mark is read on test images nobody trained on. Development was on the first 14,000 training
images, these come after (Fashion-MNIST); or on victims of the last 20,000, read on training images (CIFAR-10).
`speed`: one network (ResNet-18, CIFAR form), batch 256, whatever threads there are. lightly's loop: its SimCLR
transform on PIL images in a DataLoader with as many workers as cores, float32, its projection head and loss.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from scipy import stats
from speed import cpu, run_augment, run_precision, run_speed

from attacks_for_eval.evaluation.linear import linear_evaluation
from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from ownership.auditing.engine import versions
from ownership.io.canonical import canonical_json, sha256
from ownership.watermark import WatermarkKey, secret_key
from watermark_training.config import TrainConfig
from watermark_training.data import load_data
from watermark_training.training import train
from watermark_training.watermark import watermark_rate

RESULTS = Path(__file__).parent / "results" / "training.jsonl"
MARKED = TrainConfig(arch="small", epochs=30, batch_size=256, lr=2e-3, temperature=0.2, min_crop=0.2)
THEFT = ExtractionConfig(arch="small", queries=10_000, epochs=8, batch_size=256, lr=2e-3)
PARTS = {  # data -> victim's images, thief's queries, labelled images to learn from
    "fashion-mnist": ("train[14000:24000]", "train[24000:34000]", "train[34000:39000]"),
    "cifar10": ("train[0:20000]", "train[20000:30000]", "train[30000:35000]"),
}


def trained_on(data: str) -> TrainConfig:
    """Returns the configuration of a data set's victims: CIFAR-10 has twice the images, so fewer passes."""
    return replace(MARKED, epochs=20) if data == "cifar10" else MARKED


def run_mark(data: str, seed: int) -> dict[str, Any]:
    """Trains a marked victim and its plain twin, steals the victim twice, measures all."""
    victim, queries, learn = (load_data(f"{data}:{part}") for part in PARTS[data])
    test = load_data(f"{data}:test")
    assert learn.labels is not None
    assert test.labels is not None
    labelled, held_out = (learn.images, learn.labels), (test.images[2000:], test.labels[2000:])
    key: WatermarkKey = secret_key(torch.Generator().manual_seed(1000 + seed))
    row: dict[str, Any] = {}
    base = trained_on(data)
    for name, config, owner in (
        ("watermarked", replace(base, seed=seed), key),
        ("plain", replace(base, seed=seed, watermark="none"), None),
    ):
        start = time.perf_counter()
        trained = train(victim.images, config, key=owner)
        row[f"{name}_seconds"] = round(time.perf_counter() - start, 1)
        row[f"{name}_probe"] = linear_evaluation(trained.encoder, labelled, held_out).accuracy
        if trained.predictor is None:
            continue
        rate = partial(watermark_rate, predictor=trained.predictor, key=key, images=test.images[:2000], seed=seed)
        row["victim"] = rate(trained.encoder)
        for loss in ("mse", "infonce"):
            theft = replace(THEFT, loss=loss, seed=seed)
            surrogate = extract(BlackBox(trained.encoder), queries.images, theft)
            row[f"surrogate_{loss}"] = rate(surrogate)
    return row


def _anonymous_mib() -> float:
    """Memory of this process that no file backs, in MiB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))) / 1024


def run_memory(count: int) -> dict[str, Any]:
    """Trains some steps on few and on many mapped images; returns the largest memory beyond the file of each."""
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
                train(load_data(str(path)).images, replace(MARKED, arch="tiny", epochs=1), progress=interim)
            peaks.append(round(peak[0], 1))
    few, many = peaks[1:]
    return {
        "images": count,
        "file_mib": round(count * 3072 / 2**20),
        "peak_mib": [few, many],
        "more_mib": round(many - few, 1),
    }


def stored_rows() -> list[dict[str, Any]]:
    """Returns the committed rows."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def keep(what: str, config: dict[str, Any], row: dict[str, Any]) -> None:
    """Replaces the row of this configuration."""
    key = sha256(canonical_json({"what": what, **config}))[:16]
    row = {"key": key, "what": what, **config, **row, "cores": os.cpu_count(), "versions": versions()}
    rows = [r for r in stored_rows() if r["key"] != key]
    RESULTS.write_text("".join(json.dumps(r, sort_keys=True) + "\n" for r in [*rows, row]))
    print(json.dumps(row))


def interval(values: list[float]) -> str:
    """Returns mean and 95 % t-interval over seeds."""
    half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{mean(values):.3f} ({mean(values) - half:.3f} to {mean(values) + half:.3f})"


def print_tables() -> None:
    """Prints the rows as Markdown."""
    rows = stored_rows()
    for r in (r for r in rows if r["what"] == "speed"):
        print(f"{r.get('cpu', 'AMD EPYC, model not noted')}, bfloat16 {r['bfloat16']}\n")
        print("| | images/s (rounds) |\n|---|---|")
        for name, values in r["images_per_second"].items():
            print(f"| {name} | {', '.join(f'{v:.0f}' for v in values)} |")
        print(
            f"\nmarked over lightly's plain: {r['over_lightly']:.2f} (bfloat16 multiplication over float32 here: "
            f"{r['bfloat16_ceiling']:.2f}), compiled {r.get('compiled_over_lightly', 'not run')}; time of marked over "
            f"plain: {r['mark_overhead']:.3f}\n"
        )
    for r in (r for r in rows if r["what"] == "augment"):
        rates = ", ".join(f"{name} {v:,}" for name, v in r["images_per_second"].items())
        print(f"{r['cpu']}: images/s {rates}; ours over kornia {r['over_kornia']}\n")
    for r in (r for r in rows if r["what"] == "precision"):
        print(f"{r['cpu']}: bfloat16 over float32 {r['bfloat16_over_float32']:.2f}; auto takes {r['auto']}\n")
    for r in (r for r in rows if r["what"] == "memory"):
        print(
            f"{r['images']:,} mapped images ({r['file_mib']:,} MiB): {r['peak_mib'][1]:.0f} MiB beyond the file, "
            f"{r['more_mib']:.0f} more than for 4,096\n"
        )
    for r in (r for r in rows if r["what"] == "gpu rates"):
        rates = ", ".join(f"{name} {v:,.0f}" for name, v in r["images_per_second"].items())
        print(f"{r['device']}, {r['arch']}: images/s {rates}\n")
    for r in (r for r in rows if r["what"] == "gpu victim"):
        print(
            f"{r['device']}, {r['train']['arch']}, {r['images']:,} images, {r['passes']} passes: {r['seconds']:.0f} s, "
            f"{r['images_per_second']:,.0f} images/s, {r['utilisation']:.3f} of {r['peak'] / 1e12:.0f} TFLOP/s; mark "
            f"{r['victim']:.3f}, linear probe {r['victim_probe']:.3f}"
            + "".join(f", theft by {n} {r[f'surrogate_{n}']:.3f}" for n in ("infonce", "mse") if f"surrogate_{n}" in r)
            + "\n"
        )
    head = (
        "data",
        "images, passes",
        "watermark",
        "seeds",
        "probe, plain",
        "watermarked",
        "lost",
        "victim",
        "MSE",
        "InfoNCE",
    )
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for r in (r for r in rows if r["what"] == "watermark"):
        # rows of before there was a choice say no images: 10,000 then
        first, last = map(int, r.get("victim_images", "[0:10000]").split("[")[1].rstrip("]").split(":"))
        watermark = f"{r['train']['watermark_fraction']:g} of a batch, weight {r['train']['watermark_weight']:g}"
        groups.setdefault((r["data"], f"{last - first:,}, {r['train']['epochs']}", watermark), []).append(r)
    for what, mine in sorted(groups.items()):
        mine.sort(key=lambda r: r["seed"])
        lost = [100 * (r["plain_probe"] - r["marked_probe"]) for r in mine]
        names = ("plain_probe", "marked_probe", "victim", "surrogate_mse", "surrogate_infonce")
        cells = [interval([r[n] for r in mine]) for n in names]
        cells.insert(2, interval(lost))
        print(f"| {' | '.join(what)} | {', '.join(str(r['seed']) for r in mine)} | {' | '.join(cells)} |")


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("speed", "watermark", "memory", "precision", "augment"))
    parser.add_argument("--data", choices=PARTS, default="fashion-mnist")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--print", action="store_true", dest="show")
    arguments = parser.parse_args()
    if arguments.show:
        print_tables()
    elif arguments.what == "watermark":
        trained = trained_on(arguments.data).to_dict()
        config = {"data": arguments.data, "seed": arguments.seed, "train": trained, "theft": asdict(THEFT)}
        config["victim_images"] = PARTS[arguments.data][0]
        keep("watermark", config, run_mark(arguments.data, arguments.seed))
    elif arguments.what == "speed" and arguments.steps < 2:
        parser.error("--steps: at least 2, the first is left out")
    elif arguments.what == "speed":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            keep("speed", {"rounds": arguments.rounds, "cpu": cpu()}, run_speed(arguments.steps, arguments.rounds))
    elif arguments.what == "augment":
        keep("augment", {"rounds": arguments.rounds, "cpu": cpu()}, run_augment(arguments.rounds))
    elif arguments.what == "precision":
        keep("precision", {"rounds": arguments.rounds, "cpu": cpu()}, run_precision(arguments.rounds))
    elif arguments.what == "memory":
        keep("memory", {"count": arguments.images}, run_memory(arguments.images))
    else:
        parser.error("say what: speed, mark or memory; or --print")


if __name__ == "__main__":
    main()
