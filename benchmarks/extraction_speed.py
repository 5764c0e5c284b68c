"""Extraction throughput beside the released method's loop, measured in one run.

    python benchmarks/extraction_speed.py --arch tiny small --out benchmarks/results/extraction_speed.jsonl

The released loop, written in plain PyTorch: float32, default memory layout, images as PIL through torchvision's
per-image transforms in a DataLoader with as many workers as cores, the victim asked about every batch of every epoch,
one Adam step a batch. Ours: `extract` with the same architecture, images, batches, epochs and views. Both alternate and
the fastest of `--rounds` counts, so that a passing load on the machine hurts neither; seconds are of whole thefts,
start-up included.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from ownership.auditing.engine import versions
from ownership.encoders.architectures import ARCHITECTURES
from watermark_training.device import has_bfloat16

SIDE = 32


class Pictures(Dataset[Tensor]):
    """Images as PIL, each transformed when asked for."""

    def __init__(self, images: Tensor, transform: Callable[[object], Tensor]) -> None:
        to_pil = transforms.ToPILImage()
        self.pictures, self.transform = [to_pil(image) for image in images], transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> Tensor:
        return self.transform(self.pictures[i])


def released_transform(view: str) -> Callable[[object], Tensor]:
    """What the released code does to one image."""
    if view == "none":
        return transforms.ToTensor()
    jitter = transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(SIDE),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([jitter], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.GaussianBlur(kernel_size=3),
            transforms.ToTensor(),
        ]
    )


def released(victim: nn.Module, images: Tensor, config: ExtractionConfig) -> float:
    """Seconds of the released loop."""
    start = time.perf_counter()
    surrogate = ARCHITECTURES[config.arch]().train()
    optimizer = torch.optim.Adam(surrogate.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    pictures = Pictures(images, released_transform(config.victim_view))
    loader = DataLoader(pictures, config.batch_size, num_workers=os.cpu_count() or 1, drop_last=True)
    for _ in range(config.epochs):
        for x in loader:
            with torch.no_grad():
                responses = victim(x)
            loss = nn.functional.mse_loss(surrogate(x), responses)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - start


def ours(victim: nn.Module, images: Tensor, config: ExtractionConfig) -> float:
    """Seconds of `extract`."""
    start = time.perf_counter()
    extract(BlackBox(victim), images, config)
    return time.perf_counter() - start


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=["tiny", "small"])
    parser.add_argument("--views", nargs="+", choices=("none", "standard"), default=["none", "standard"])
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    for arch in arguments.arch:
        n = arguments.images if arch in ("tiny", "small", "small_vgg") else max(256, arguments.images // 8)
        images = torch.randint(256, (n, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
        victim = ARCHITECTURES[arch]().eval()
        for view in arguments.views:
            config = ExtractionConfig(
                arch=arch, queries=n, epochs=arguments.epochs, batch_size=128, lr=1e-3, victim_view=view, loss="mse"
            )  # type: ignore[arg-type]
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
                "cores": os.cpu_count(),
                "bfloat16": has_bfloat16(torch.device("cpu")),
                "versions": versions(),
            }
            print(json.dumps(row), flush=True)
            if arguments.out is not None:
                with arguments.out.open("a") as f:
                    f.write(json.dumps(row, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
