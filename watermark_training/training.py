"""Self-supervised training with the rotation watermark, jointly with the rotation predictor; and retrofitting it.

Paper, section 5.1: "the encoder optimizes both the training and watermarking objectives". Each step is one forward
pass over two contrastive views of every image and two rotated views of some of them, one loss, and one update of
encoder, projection head and predictor together. (The released code alternates and never trains the predictor; see
docs/adr/0002.) At the end the predictor is fitted again to the finished encoder (docs/adr/0020). The method "embed"
adds the watermark to a trained encoder, whose representations it preserves (docs/adr/0009).
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ownership.encoders.architectures import CUSTOM, Encoder, make_encoder
from ownership.encoders.images import as_input, beside, check_images
from ownership.errors import TrainingError
from ownership.watermark import RotationPredictor, WatermarkKey
from watermark_training.callbacks import Callbacks
from watermark_training.config import TrainConfig
from watermark_training.device import compile_errors
from watermark_training.loop import TrainingRun

MIN_WATERMARK_ACCURACY = 0.55
"""Accuracy on rotated views below which a run warns that the watermark is not learned; chance is 0.5."""

PATIENCE = 0.25
"""Fraction of the epochs after which a run warns if the watermark or the loss does not improve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Result of `train`.

    Attributes:
        config: what was trained.
        encoder: the encoder, on the CPU, in eval mode.
        projection_head: of the method; None after "embed".
        predictor: rotation predictor of a watermarked encoder.
        key: its secret key.
        metrics: one row an epoch: epoch, contrastive_loss, spread, watermark_loss, watermark_accuracy.
    """

    config: TrainConfig
    encoder: Encoder
    projection_head: nn.Module | None
    predictor: RotationPredictor | None
    key: WatermarkKey | None
    metrics: list[dict[str, float]]


def train(
    images: Tensor,
    config: TrainConfig,
    *,
    key: WatermarkKey | None = None,
    start: Encoder | None = None,
    device: torch.device | str = "cpu",
    checkpoint: Path | str | None = None,
    save_every: float = 300.0,
    callbacks: Callbacks = Callbacks(),  # noqa: B008  (frozen)
) -> Trained:
    """Train an encoder by `config.method` and, unless `config.watermark` is "none", the rotation watermark.

    In processes that `torch.distributed` joined, each one trains on its part of every batch, and all return the same.

    Args:
        images: `(n, c, h, w)` uint8, c = 1 or 3, in memory or memory-mapped; labels are never used.
        config: what to train.
        key: secret key for the watermark "secret"; a fresh one, from the system's randomness, if not given.
        start: encoder that training starts from, of the configuration's architecture; required to embed and for the
            architecture "custom". Initial weights are drawn if not given.
        device: where to compute.
        checkpoint: file that keeps the state of the run. A run with the same configuration continues from it and ends
            with the same weights as an uninterrupted run (on a GPU up to rounding, as it sums in varying order).
        save_every: seconds after which the state is saved within an epoch; it is always saved at the end of an epoch.
        callbacks: progress, advice, metrics.

    Raises:
        TrainingError: if there are too few images, `start` has another architecture, the encoder cannot take the
            images, the loss is no longer finite, or the representation collapses.
    """
    check_images(images, TrainingError, minimum=max(8, min(config.batch_size, 32)))
    run = TrainingRun(config, images, torch.device(device), key, start)
    checkpoint = None if checkpoint is None else Path(checkpoint)
    run.restore(checkpoint)
    for row in run.metrics:
        callbacks.epoch(row)
    if run.device.type != "cpu":
        images = _on_device(images, run.device)
    total, saved = config.epochs * run.steps_per_epoch, time.monotonic()
    while run.epoch < config.epochs:
        for batch in run.batches(len(images)):
            with compile_errors():
                run.step(as_input(beside(images[beside(batch, images)], run.sums)))
            callbacks.progress("training", run.epoch * run.steps_per_epoch + run.done, total)
            between_updates = run.done % config.accumulate == 0 and run.done < run.steps_per_epoch
            if between_updates and time.monotonic() - saved >= save_every:
                run.save(checkpoint)
                saved = time.monotonic()
        run.end_epoch()
        callbacks.epoch(run.metrics[-1])
        if run.epoch == max(3, round(PATIENCE * config.epochs)):
            for line in learning_warnings(run.metrics):
                callbacks.warn(line)
        run.save(checkpoint)
        saved = time.monotonic()
    if run.watermark is not None:
        # costs fewer queries than one more epoch; surrogates of a retrofitted encoder respond like its original, too
        run.watermark.refit(run.encoder, images, base_encoder=None if config.method == "embed" else start)
    return _result(run)


def learning_warnings(metrics: list[dict[str, float]]) -> list[str]:
    """Return advice if, in these epochs, the watermark or the method's own loss does not improve."""
    first, last = metrics[0], metrics[-1]
    out = []
    if last.get("watermark_accuracy", 1.0) < MIN_WATERMARK_ACCURACY:
        out.append(
            f"the watermark is not being learned: accuracy on rotated views is {last['watermark_accuracy']:.2f} after "
            f"{last['epoch']:.0f} epochs, chance is 0.50 "
            "(raise --watermark-fraction to 0.5, or --lr; do the images have an up and a down?)"
        )
    if len(metrics) > 1 and not last["contrastive_loss"] < first["contrastive_loss"]:
        out.append(
            f"the loss does not fall: {first['contrastive_loss']:.3f} in the first epoch, "
            f"{last['contrastive_loss']:.3f} after {last['epoch']:.0f} epochs (lower --lr, or raise --batch-size)"
        )
    return out


def _on_device(images: Tensor, device: torch.device) -> Tensor:
    """The images on the device, if they take at most a quarter of its free memory."""
    if device.type == "cuda" and images.nbytes > torch.cuda.mem_get_info(device)[0] / 4:
        return images
    return images.to(device)


def _result(run: TrainingRun) -> Trained:
    encoder = run.encoder
    run.optimizer.zero_grad(set_to_none=True)
    if any(isinstance(m, nn.SyncBatchNorm) for m in encoder.modules()):  # its file must load in a single process
        custom = run.start if run.config.arch == CUSTOM else None
        plain = make_encoder(run.config.arch) if custom is None else copy.deepcopy(custom)
        plain.load_state_dict(encoder.state_dict())
        encoder = plain
    parts = [encoder, *run.objective.modules().values()]
    parts += [] if run.watermark is None else [run.watermark.predictor]
    for module in parts:
        module.to("cpu").to(memory_format=torch.contiguous_format).eval()
    return Trained(
        config=run.config,
        encoder=encoder,
        projection_head=run.objective.modules().get("head"),
        predictor=None if run.watermark is None else run.watermark.predictor,
        key=run.key,
        metrics=run.metrics,
    )
