"""Measure the speed of training: `speed`, `precision` and `augment` of `python -m benchmarks.training run`."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain, islice, repeat
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.machine import cores
from benchmarks.common.rows import Row
from ownership.encoders.architectures import make_encoder
from watermark_training.augment import simclr_view
from watermark_training.callbacks import Callbacks
from watermark_training.config import TrainConfig
from watermark_training.device import has_bfloat16
from watermark_training.training import train


def lightly_steps(images: Tensor, steps: int) -> float:
    """Return the images a second of lightly's SimCLR example with our network in its place."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms.simclr_transform import SimCLRTransform
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms.functional import to_pil_image

    transform = SimCLRTransform(input_size=images.shape[-1], gaussian_blur=0.0)

    class Pictures(Dataset[Any]):
        def __init__(self) -> None:
            self.pictures = [to_pil_image(x) for x in images]

        def __len__(self) -> int:
            return len(self.pictures)

        def __getitem__(self, i: int) -> Any:
            return transform(self.pictures[i])

    encoder = make_encoder("resnet18").train()
    head, criterion = SimCLRProjectionHead(512, 512, 128), NTXentLoss()
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.06)
    loader = DataLoader(Pictures(), 256, shuffle=True, drop_last=True, num_workers=cores())
    start = 0.0
    for step, (x0, x1) in enumerate(islice(chain.from_iterable(repeat(loader)), steps)):
        loss = criterion(head(encoder(x0)), head(encoder(x1)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == 0:  # the loader's processes start and, in our loop, the network may be compiled
            start = time.perf_counter()
    return (steps - 1) * 256 / (time.perf_counter() - start)


def our_steps(images: Tensor, watermark: str, *, compile: bool = False) -> float:
    """Return the images a second of one epoch of ours, its first step left out as above."""
    config = TrainConfig(arch="resnet18", epochs=1, batch_size=256, watermark=watermark, compile=compile)  # type: ignore[arg-type]
    ends: list[float] = []
    train(images, config, callbacks=Callbacks(progress=lambda *_: ends.append(time.perf_counter())))
    return (len(images) - 256) / (ends[-1] - ends[0])


def run_precision(rounds: int) -> Row:
    """Alternate training steps in float32 and in bfloat16; the fastest round of each counts."""
    images, rates = torch.randint(0, 256, (512, 3, 32, 32), dtype=torch.uint8), {"float32": 0.0, "bfloat16": 0.0}
    for _ in range(rounds):
        for precision in rates:
            config = TrainConfig(arch="resnet18", epochs=1, batch_size=128, watermark="secret", precision=precision)  # type: ignore[arg-type]
            start = time.perf_counter()
            train(images, config)
            rates[precision] = max(rates[precision], len(images) / (time.perf_counter() - start))
    return {
        "images_per_second": {name: round(v, 1) for name, v in rates.items()},
        "bfloat16_over_float32": round(rates["bfloat16"] / rates["float32"], 2),
        "auto": "bfloat16" if has_bfloat16(torch.device("cpu")) else "float32",
    }


def run_augment(rounds: int) -> Row:
    """Alternate a view of 1,024 images by ours, by kornia in batches, by torchvision one by one; the best counts.

    The same operations with the same strengths; kornia is no dependency (pip install kornia).
    """
    from kornia import augmentation as kornia
    from torchvision.transforms import v2
    from torchvision.transforms.functional import to_pil_image

    images = torch.rand(1024, 3, 32, 32)
    pictures = [to_pil_image(x) for x in images]
    batched = kornia.AugmentationSequential(
        kornia.RandomResizedCrop((32, 32), scale=(0.08, 1.0)),
        kornia.RandomHorizontalFlip(),
        kornia.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        kornia.RandomGrayscale(p=0.2),
        kornia.RandomGaussianBlur((3, 3), (0.1, 2.0), p=1.0),
    )
    one_by_one = v2.Compose(
        [
            v2.RandomResizedCrop(32, scale=(0.08, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.GaussianBlur(3, (0.1, 2.0)),
            v2.PILToTensor(),
        ]
    )
    generator = torch.Generator().manual_seed(0)
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: simclr_view(images, generator),
        "kornia": lambda: batched(images),
        "torchvision": lambda: [one_by_one(x) for x in pictures],
    }
    rates = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, view in ways.items():
            start = time.perf_counter()
            view()
            rates[name] = max(rates[name], len(images) / (time.perf_counter() - start))
    return {
        "images_per_second": {name: round(v) for name, v in rates.items()},
        "over_kornia": round(rates["ours"] / rates["kornia"], 2),
        "over_torchvision": round(rates["ours"] / rates["torchvision"], 2),
    }


def ceiling() -> float:
    """Return how many times faster this machine multiplies in bfloat16 than in float32: the kernel's own gain."""
    rates = {}
    for kind in (torch.float32, torch.bfloat16):
        a, best = torch.randn(2048, 2048, dtype=kind), float("inf")
        for _ in range(8):
            start = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - start)
        rates[kind] = 2 * 2048**3 / best
    return rates[torch.bfloat16] / rates[torch.float32]


def run_speed(steps: int, rounds: int) -> Row:
    """Alternate lightly's loop with ours, watermarked and plain; the fastest round of each counts."""
    images = torch.randint(0, 256, (256 * steps, 3, 32, 32), dtype=torch.uint8)
    rates: dict[str, list[float]] = {"lightly": [], "watermarked": [], "plain": [], "watermarked, compiled": []}
    for _ in range(rounds):
        rates["lightly"].append(lightly_steps(images, steps))
        rates["watermarked"].append(our_steps(images, "secret"))
        rates["watermarked, compiled"].append(our_steps(images, "secret", compile=True))
        rates["plain"].append(our_steps(images, "none"))
    best = {name: max(values) for name, values in rates.items()}
    return {
        "steps": steps,
        "images_per_second": {name: [round(v, 1) for v in values] for name, values in rates.items()},
        "over_lightly": round(best["watermarked"] / best["lightly"], 2),
        "compiled_over_lightly": round(best["watermarked, compiled"] / best["lightly"], 2),
        "watermark_overhead": round(best["plain"] / best["watermarked"], 3),
        "bfloat16_ceiling": round(ceiling(), 2),
        "bfloat16": has_bfloat16(torch.device("cpu")),
    }
