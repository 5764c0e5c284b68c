"""Time `extract` and the paper's released loop, in one run.

    python -m benchmarks.extraction_speed run --arch tiny small --epochs 4
    python -m benchmarks.extraction_speed run --arch small --views none --epochs 10 --rounds 2

The released loop, written in plain PyTorch: float32, default memory layout, images as PIL through torchvision's
per-image transforms in a DataLoader with as many workers as cores, the victim queried for every batch of every epoch,
one Adam step a batch. Ours: `extract` with the same architecture, images, batches, epochs and views. The two alternate
and the fastest of `--rounds` counts, so that a passing load on the machine affects neither. Seconds are of whole
extractions, start-up included.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from benchmarks.common.machine import cores, versions
from benchmarks.common.rows import RowStore
from ownership.encoders.architectures import ARCHITECTURES
from watermark_training.device import has_bfloat16

SIDE = 32
LR = 1e-3
ROWS = RowStore("extraction_speed")


class Pictures(Dataset[Tensor]):
    """Images as PIL, each transformed when read."""

    def __init__(self, images: Tensor, transform: Callable[[Any], Tensor]) -> None:
        to_pil = transforms.ToPILImage()
        self.pictures, self.transform = [to_pil(image) for image in images], transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> Tensor:
        return self.transform(self.pictures[i])


def released_transform(view: str) -> Callable[[Any], Tensor]:
    """Return the transform of one image in the released code."""
    if view == "none":
        whole: Callable[[Any], Tensor] = transforms.ToTensor()
        return whole
    jitter = transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)
    augmented: Callable[[Any], Tensor] = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIDE),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([jitter], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.GaussianBlur(kernel_size=3),
            transforms.ToTensor(),
        ]
    )
    return augmented


def released(victim: nn.Module, images: Tensor, config: ExtractionConfig) -> float:
    """Return the seconds of the released loop."""
    start = time.perf_counter()
    surrogate = ARCHITECTURES[config.arch]().train()
    optimizer = torch.optim.Adam(surrogate.parameters(), lr=LR, weight_decay=config.weight_decay)
    pictures = Pictures(images, released_transform(config.victim_view))
    loader = DataLoader(pictures, config.batch_size, num_workers=cores(), drop_last=True)
    for _ in range(config.epochs):
        for x in loader:
            with torch.no_grad():
                responses = victim(x)
            loss = nn.functional.mse_loss(surrogate(x), responses)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return time.perf_counter() - start


def ours(victim: nn.Module, images: Tensor, config: ExtractionConfig) -> float:
    """Return the seconds of `extract`."""
    start = time.perf_counter()
    extract(BlackBox(victim), images, config)
    return time.perf_counter() - start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--arch", nargs="+", default=["tiny", "small"])
    parser.add_argument("--views", nargs="+", choices=("none", "standard"), default=["none", "standard"])
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)


def run(arguments: argparse.Namespace) -> None:
    """Measure and add a row for each architecture and view."""
    generator = torch.Generator().manual_seed(0)
    for arch in arguments.arch:
        n = arguments.images if arch in ("tiny", "small", "small_vgg") else max(256, arguments.images // 8)
        images = torch.randint(256, (n, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
        victim = ARCHITECTURES[arch]().eval()
        for view in arguments.views:
            config = ExtractionConfig(
                arch=arch, queries=n, epochs=arguments.epochs, batch_size=128, lr=LR, victim_view=view, loss="mse"
            )
            seconds: dict[str, list[float]] = {"released": [], "ours": []}
            for _ in range(arguments.rounds):
                seconds["released"].append(released(victim, images, config))
                seconds["ours"].append(ours(victim, images, config))
            best = {name: min(values) for name, values in seconds.items()}
            row = {
                "arch": arch,
                "view": view,
                "images": n,
                "epochs": arguments.epochs,
                "images_per_second": {name: round(n * arguments.epochs / s, 1) for name, s in best.items()},
                "ratio": round(best["released"] / best["ours"], 2),
                "rounds": {name: [round(s, 2) for s in values] for name, values in seconds.items()},
                "cores": cores(),
                "bfloat16": has_bfloat16(torch.device("cpu")),
                "versions": versions(),
            }
            print(json.dumps(row), flush=True)
            ROWS.append(row)
