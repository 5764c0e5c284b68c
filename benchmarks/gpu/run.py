"""Train the paper's victim on one GPU: ResNet-18 on CIFAR-10, batch 256, 200 epochs, watermarked; extract it twice.

    TURNMARK_DATA=runs/data python -m benchmarks.gpu run rates --work runs/gpu     # images/s, eager and compiled
    TURNMARK_DATA=runs/data python -m benchmarks.gpu run victim --work runs/gpu    # resumes; a row at the end
    ... --device cpu --arch tiny --images 2048 --epochs 1                          # the same at toy size

The victim is trained on all 50,000 training images. Time is that of the whole training, the fit of the predictor and
compilation included. The attacker queries 9,000 test images (the paper's number), none rotated, and trains an encoder
of the same architecture for 50 epochs; the watermark is tested on the 1,000 test images that are left. Utilisation:
floating-point operations of the encoder (torch's own counter) a second, over those of a product of 8192 x 8192 matrices
in bfloat16 on the same device.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from attacks_for_eval.evaluation.linear import linear_evaluation
from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from benchmarks.common.rows import Row, RowStore
from benchmarks.training.run import keep
from ownership.encoders.architectures import make_encoder
from ownership.io.files import write_json
from ownership.watermark import secret_key
from watermark_training.callbacks import Callbacks
from watermark_training.config import TrainConfig
from watermark_training.data import load_data
from watermark_training.loaded_encoder import load_trained
from watermark_training.train_folder import describe_data, save_trained
from watermark_training.training import train
from watermark_training.watermark import watermark_rate

CONFIG = TrainConfig(arch="resnet18", epochs=200, batch_size=256, watermark="secret")
QUERIES, LABELLED = 9000, 10_000
ROWS = RowStore("gpu")


def peak(device: torch.device) -> float:
    """Return the floating-point operations a second of a bfloat16 product of large random matrices."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        settle(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def settle(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def operations(arch: str) -> int:
    """Return the floating-point operations of a forward and backward pass on one 32 x 32 view."""
    encoder = make_encoder(arch)
    with FlopCounterMode(display=False) as counter:
        encoder(torch.rand(2, 3, 32, 32)).sum().backward()
    return int(counter.get_total_flops()) // 2


def run_rates(images: torch.Tensor, base: TrainConfig, device: torch.device) -> dict[str, float]:
    """Return the images a second of steps 10 to 70: eager, plain and compiled."""
    rates = {}
    for name, config in {
        "watermarked": base,
        "watermarked, kernels tried": base,
        "plain": replace(base, watermark="none"),
        "watermarked, compiled, kernels tried": replace(base, compile=True),
    }.items():
        torch.backends.cudnn.benchmark = "tried" in name
        begin = time.perf_counter()
        at: dict[int, float] = {}

        def interim(_what: str, done: int, _total: int, at: dict[int, float] = at) -> None:
            if done in (10, 70):
                settle(device)
                at[done] = time.perf_counter()
            if done == 70:
                raise KeyboardInterrupt  # the fit of the predictor, that comes next, is no step

        with suppress(KeyboardInterrupt):
            train(
                images[: 70 * base.batch_size],
                replace(config, epochs=1),
                device=device,
                callbacks=Callbacks(progress=interim),
            )
        rates[name] = 60 * base.batch_size / (at[70] - at[10])
        print(f"{name}: {rates[name]:.0f} images/s, {time.perf_counter() - begin:.0f} s in all", flush=True)
    return rates


def run_victim(work: Path, config: TrainConfig, device: torch.device, count: int) -> Row:
    """Train the victim, extract it twice, return what was measured."""
    images = load_data(f"cifar10:train[0:{count}]")
    test = load_data("cifar10:test")
    key = secret_key(torch.Generator().manual_seed(1000))
    folder, clock = work / "victim", work / "seconds.json"
    row: Row = {"images": count}
    if not (folder / "config.json").is_file():
        before = spent(clock)
        start = time.perf_counter()

        def watch(metrics: dict[str, float]) -> None:
            write_json(clock, {"seconds": before + time.perf_counter() - start})
            print(json.dumps(metrics), flush=True)

        trained = train(
            images.images,
            config,
            key=key,
            device=device,
            checkpoint=work / "checkpoint.pt",
            callbacks=Callbacks(epoch=watch),
            save_every=60,
        )
        write_json(clock, {"seconds": before + time.perf_counter() - start})
        save_trained(trained, folder, describe_data(images.name, images.images), None)
    row["seconds"] = round(spent(clock), 1)
    row["images_per_second"] = round(count * config.epochs / row["seconds"], 1)
    views = 2 * (1 + (config.watermark_fraction if config.watermark != "none" else 0))
    row["operations_a_view"], row["peak"] = operations(config.arch), peak(device)
    row["utilisation"] = round(row["images_per_second"] * views * row["operations_a_view"] / row["peak"], 4)
    owner = load_trained(folder)
    assert owner.predictor is not None
    assert isinstance(owner.encoder, torch.nn.Module)
    encoder = owner.encoder.to(device)
    rate = partial(watermark_rate, predictor=owner.predictor, key=key, images=test.images[QUERIES:])
    assert images.labels is not None
    assert test.labels is not None
    learn = images.images[:LABELLED], images.labels[:LABELLED]
    held_out = test.images[QUERIES:], test.labels[QUERIES:]
    row["victim"] = rate(encoder)
    row["victim_probe"] = linear_evaluation(encoder, learn, held_out).accuracy
    print(json.dumps(row), flush=True)
    for loss in ("infonce", "mse"):
        epochs = min(50, config.epochs)
        extraction = ExtractionConfig(arch=config.arch, loss=loss, queries=QUERIES, epochs=epochs, batch_size=256)
        start = time.perf_counter()
        surrogate = extract(BlackBox(encoder), test.images[:QUERIES], extraction, device=device).to(device)
        row[f"surrogate_{loss}"] = rate(surrogate)
        row[f"surrogate_{loss}_probe"] = linear_evaluation(surrogate, learn, held_out).accuracy
        row[f"surrogate_{loss}_seconds"] = round(time.perf_counter() - start, 1)
        print(json.dumps(row), flush=True)
    return row


def spent(clock: Path) -> float:
    """Return the seconds that training took so far, over all tries."""
    return float(json.loads(clock.read_text())["seconds"]) if clock.is_file() else 0.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("what", choices=("rates", "victim"))
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--arch", default=CONFIG.arch)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=CONFIG.epochs)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--try-kernels", action="store_true", help="torch.backends.cudnn.benchmark")


def run(arguments: argparse.Namespace) -> None:
    """Measure and replace one row."""
    device = torch.device(arguments.device)
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = arguments.try_kernels
    config = replace(CONFIG, arch=arguments.arch, epochs=arguments.epochs, compile=arguments.compile)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    if arguments.what == "rates":
        images = load_data(f"cifar10:train[0:{min(arguments.images, 17_920)}]").images
        print(f"{name}, peak {peak(device) / 1e12:.0f} TFLOP/s", flush=True)
        rates = run_rates(images, config, device)
        write_json(arguments.work / "rates.json", rates)
        keep(ROWS, "rates", {"device": name, "arch": config.arch}, {"images_per_second": rates})
        return
    row = run_victim(arguments.work, config, device, arguments.images)
    keep(ROWS, "victim", {"device": name, "train": config.to_dict(), "epochs": config.epochs}, row)
