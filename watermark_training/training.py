"""Self-supervised training with a watermark, and retrofitting it.

Each step is one forward pass over two contrastive views of every image and what the watermark shows of some of them,
one loss, and one update of encoder, projection head and the watermark's module together. The keyed watermark shows
images without augmentation, from whose representations its head reads the targets (docs/adr/0034). The rotation
watermark (the paper, section 5.1) shows two rotated views an image; at the end its predictor is fitted again to the
finished encoder (docs/adr/0002, docs/adr/0020). The method "embed" adds the watermark to a trained encoder, whose
representations it preserves (docs/adr/0009).
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
from ownership.keyed.pool import KeyMaterial
from ownership.keyed.test import KeyTestResult
from ownership.watermark import RotationPredictor, WatermarkKey
from watermark_training.callbacks import Callbacks
from watermark_training.config import TrainConfig
from watermark_training.device import compile_errors
from watermark_training.keyed_watermark import KeyedWatermark
from watermark_training.loop import TrainingRun
from watermark_training.watermark import RotationWatermark

MIN_WATERMARK_ACCURACY = 0.55
"""Accuracy on rotated views below which a run warns that the watermark is not learned; chance is 0.5."""

MIN_R_SQUARED = 0.03
"""Share of the variance of the content targets below which a run warns that the keyed watermark is not learned."""

MOST_MOVED = 0.5
"""Distance of new and old representations, in units of their variance, from which on embedding warns."""

BY_HEART = 0.5
"""Share of the variance of the targets of the training images from which on a weak watermark was learned by heart."""

LARGEST_P = 1e-4
"""Largest p-value of the key test on the finished encoder at which the keyed watermark counts as learned."""

PATIENCE = 0.25
"""Fraction of the epochs after which a run warns if the watermark or the loss does not improve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Result of `train`.

    Attributes:
        config: what was trained.
        encoder: the encoder, on the CPU, in eval mode.
        projection_head: of the method; None after "embed".
        predictor: rotation predictor of an encoder with a rotation watermark.
        key: its secret key.
        metrics: one row an epoch: epoch, contrastive_loss, spread; keyed_loss and keyed_r_squared, or watermark_loss
            and watermark_accuracy.
        material: key and probes of an encoder with a keyed watermark.
        key_test: the key test on the encoder itself.
    """

    config: TrainConfig
    encoder: Encoder
    projection_head: nn.Module | None
    predictor: RotationPredictor | None
    key: WatermarkKey | None
    metrics: list[dict[str, float]]
    material: KeyMaterial | None = None
    key_test: KeyTestResult | None = None


def train(
    images: Tensor,
    config: TrainConfig,
    *,
    key: WatermarkKey | None = None,
    material: KeyMaterial | None = None,
    start: Encoder | None = None,
    device: torch.device | str = "cpu",
    checkpoint: Path | str | None = None,
    save_every: float = 300.0,
    callbacks: Callbacks = Callbacks(),  # noqa: B008  (frozen)
) -> Trained:
    """Train an encoder by `config.method` and, unless `config.watermark` is "none", a watermark.

    In processes that `torch.distributed` joined, each one trains on its part of every batch, and all return the same.

    Args:
        images: `(n, c, h, w)` uint8, c = 1 or 3, in memory or memory-mapped; labels are never used.
        config: what to train.
        key: secret key for the watermark "secret"; a fresh one, from the system's randomness, if not given.
        material: key for the watermark "keyed" with its probes. If not given, a new key is made, and a tenth of the
            images (at least 200, or a quarter of few; at most 4,000) is held out: the key draws its probes from them.
        start: encoder that training starts from, of the configuration's architecture; required to embed and for the
            architecture "custom". Initial weights are drawn if not given.
        device: where to compute.
        checkpoint: file that keeps the state of the run. A run with the same configuration continues from it and ends
            with the same weights as an uninterrupted run (on a GPU up to rounding, as it sums in varying order).
        save_every: seconds after which the state is saved within an epoch; it is always saved at the end of an epoch.
        callbacks: progress, advice, metrics.

    Raises:
        TrainingError: if there are too few images, `start` has another architecture, the encoder cannot take the
            images, the key is for another watermark or other images, the loss is no longer finite, or the
            representation collapses.
    """
    check_images(images, TrainingError, minimum=max(8, min(config.batch_size, 32)))
    if (key is not None and config.watermark == "keyed") or (material is not None and config.watermark != "keyed"):
        raise TrainingError(f"the key is not one for the watermark {config.watermark}", "name its watermark")
    run = TrainingRun(config, images, torch.device(device), key, start, material)
    checkpoint = None if checkpoint is None else Path(checkpoint)
    run.restore(checkpoint)
    run.pool = None  # which only a checkpoint's key is drawn from again
    for row in run.metrics:
        callbacks.epoch(row)
    if run.device.type != "cpu":
        images = _on_device(images, run.device)
    run.tabulate(images)
    total, saved = config.epochs * run.steps_per_epoch, time.monotonic()
    while run.epoch < config.epochs:
        for batch in run.batches(len(images)):
            with compile_errors():
                run.step(as_input(beside(images[beside(batch, images)], run.sums)), batch)
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
    if isinstance(run.watermark, RotationWatermark):
        # costs fewer queries than one more epoch; surrogates of a retrofitted encoder respond like its original, too
        run.watermark.refit(run.encoder, images, base_encoder=None if config.method == "embed" else start)
    trained = _result(run)
    if trained.key_test is not None and trained.key_test.pvalue > LARGEST_P:
        callbacks.warn(weak_watermark(trained.key_test.pvalue, trained.metrics, config))
    if config.method == "embed" and (moved := trained.metrics[-1]["contrastive_loss"]) > MOST_MOVED:
        callbacks.warn(
            f"the representations moved by {moved:.2f} of their variance: classifiers that were fitted before fail "
            "(lower --lr: pretrained ImageNet encoders took 0.0002 and 0.00005)"
        )
    return trained


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
    if last.get("keyed_r_squared", 1.0) < MIN_R_SQUARED:
        out.append(
            "the keyed watermark is not being learned: its head predicts "
            f"{last['keyed_r_squared']:.2f} of the variance of the content targets after {last['epoch']:.0f} epochs "
            "(raise --keyed-fraction, --keyed-weight or --lr)"
        )
    if len(metrics) > 1 and not last["contrastive_loss"] < first["contrastive_loss"]:
        out.append(
            f"the loss does not fall: {first['contrastive_loss']:.3f} in the first epoch, "
            f"{last['contrastive_loss']:.3f} after {last['epoch']:.0f} epochs (lower --lr, or raise --batch-size)"
        )
    return out


def weak_watermark(pvalue: float, metrics: list[dict[str, float]], config: TrainConfig) -> str:
    """Return advice for an encoder in which the key test does not find its own watermark.

    A large encoder learns the targets of few images by heart: its head predicts them for the images of the training,
    and not for the probes.
    """
    said = f"the keyed watermark is weak: the key test on the encoder itself gives p = {pvalue:.2g} "
    read = metrics[-1]["keyed_r_squared"]
    if read > BY_HEART and not config.keyed_views:
        return said + (
            f"although {read:.2f} of the variance of the targets is predicted on the training images: they were "
            "learned by heart (with the same key: --keyed-views, or more images)"
        )
    return said + (
        "(with the same key: more --epochs, or a larger --keyed-weight or --keyed-fraction; another key would not be "
        "the first one)"
    )


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
    rotation = run.watermark if isinstance(run.watermark, RotationWatermark) else None
    parts += [] if rotation is None else [rotation.predictor]
    for module in parts:
        module.to("cpu").to(memory_format=torch.contiguous_format).eval()
    return Trained(
        config=run.config,
        encoder=encoder,
        projection_head=run.objective.modules().get("head"),
        predictor=None if rotation is None else rotation.predictor,
        key=run.key,
        metrics=run.metrics,
        material=run.material,
        key_test=run.watermark.check(encoder) if isinstance(run.watermark, KeyedWatermark) else None,
    )
