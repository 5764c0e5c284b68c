"""Time `turnmark claim build` for a victim with a key, as a user runs it: a process of its own.

    python -m benchmarks.claim_time run digits      # a victim of the digits, with its three reference surrogates
    python -m benchmarks.claim_time run resnet50    # 224 x 224 pixels, 2,000 probes, beside bare inference

`digits`: the victim is trained first, which is not timed. `resnet50`: random weights, no reference surrogates, as their
cost is that of a distillation. Bare inference, of the same probes in this process, and the command alternate; the
fastest round of each counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.machine import cores, cpu, versions
from benchmarks.common.rows import Row, RowStore
from ownership.encoders.architectures import make_encoder
from ownership.encoders.images import as_uint8, represent
from ownership.keyed.key import new_key
from ownership.keyed.pool import KeyMaterial, pool_of
from watermark_training.config import TrainConfig
from watermark_training.data import load_data
from watermark_training.keyed_watermark import KeyedWatermark
from watermark_training.own_loop import save_train_folder
from watermark_training.train_folder import train_to

ROWS = RowStore("claim_time")
SIDE, PROBES = 224, 2000
ARCH = "torchvision:resnet50"  # the "resnet50" of the project is the form for small images


def timed(folder: Path, *options: object) -> float:
    """Return the seconds of `turnmark claim build` for a train folder."""
    out = folder.parent / f"claim_{time.monotonic_ns()}"
    command = [sys.executable, "-m", "cli.main", "claim", "build", folder, "--out", out, *options]
    start = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def digits(place: Path, rounds: int) -> Row:
    """Time the claim of a victim of the digits: 600 images in the pool, 400 of them probes."""
    images = load_data("digits").images
    material = KeyMaterial.draw(new_key(pool_of(images[:600])), images[:600])
    config = TrainConfig(arch="tiny", epochs=20, batch_size=128, lr=2e-3, flip=False)
    train_to(place / "victim", load_data("digits[600:]"), config, material=material)
    seconds = [timed(place / "victim", "--public", "digits[:600]") for _ in range(rounds)]
    return {"probes": material.key.probes, "seconds": min(seconds), "rounds": seconds}


def resnet50(place: Path, rounds: int) -> Row:
    """Time the claim of a ResNet-50 against bare inference."""
    torch.manual_seed(0)
    images = textures(PROBES)
    material = KeyMaterial.draw(new_key(pool_of(images), probes=PROBES), images)
    encoder = make_encoder(ARCH).eval()
    save_train_folder(place / "victim", encoder, images[:100], KeyedWatermark(2048, material), arch=ARCH)
    seconds: dict[str, list[float]] = {"bare": [], "command": []}
    for _ in range(rounds):
        start = time.perf_counter()
        represent(encoder, material.probes)
        seconds["bare"].append(time.perf_counter() - start)
        seconds["command"].append(timed(place / "victim", "--no-reference"))
    bare, command = (min(seconds[name]) for name in ("bare", "command"))
    return {"probes": PROBES, "seconds": command, "bare": bare, "beyond": command - 1.1 * bare, "rounds": seconds}


def textures(count: int) -> Tensor:
    """Return random images `(count, 3, 224, 224)` uint8, smooth enough to differ by more than noise."""
    parts = [F.interpolate(torch.rand(100, 3, 14, 14), size=SIDE, mode="bilinear") for _ in range(count // 100)]
    return torch.cat([as_uint8(part) for part in parts])


CASES = {"digits": digits, "resnet50": resnet50}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--rounds", type=int, default=2)


def run(arguments: argparse.Namespace) -> None:
    """Measure and replace one row."""
    with tempfile.TemporaryDirectory() as place:
        measured = CASES[arguments.case](Path(place), arguments.rounds)
    row = {"case": arguments.case, "cpu": cpu(), "cores": cores(), **measured, "versions": versions()}
    print(json.dumps(row))
    ROWS.replace([row], lambda r: f"{r['case']} {r['cpu']}")
