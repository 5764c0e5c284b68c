"""Self-supervised training with the rotation watermark, jointly with the rotation predictor; and retrofitting it.

Paper, section 5.1: "the encoder optimizes both the training and watermarking objectives". Each step is one forward
pass over two contrastive views of every image and two rotated views of some of them, one loss, one update of
encoder, projection head and predictor together (the released code alternates and never trains the predictor; see
docs/adr/0002). At the end the predictor of an encoder from fresh weights is fitted anew (docs/adr/0020). The method
"embed" adds the mark to an encoder that exists; beside the mark it learns to answer as before (docs/adr/0009).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ownership.encoders.architectures import CUSTOM, Encoder, make_encoder
from ownership.encoders.images import as_input, beside, check_images
from ownership.errors import TrainingError
from ownership.io.progress import Progress, silent
from ownership.watermark import RotationPredictor, WatermarkKey
from watermark_training.config import TrainConfig
from watermark_training.device import compile_errors
from watermark_training.loop import State

UNLEARNT = 0.55
"""Share of rotated views told apart below which the mark is not being learnt; chance is one half."""

PATIENCE = 0.25
"""Share of the epochs after which a mark or a loss that does not learn is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What `train` returns: the encoder, its head, and for a marked one the predictor and the key (secret)."""

    config: TrainConfig
    encoder: Encoder
    projection_head: nn.Module | None  # none after "embed"
    predictor: RotationPredictor | None
    key: WatermarkKey | None
    metrics: list[
        dict[str, float]
    ]  # one row an epoch: epoch, contrastive_loss, spread, watermark_loss, watermark_accuracy


def train(
    images: Tensor,
    config: TrainConfig,
    *,
    key: WatermarkKey | None = None,
    start: Encoder | None = None,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    save_every: float = 300.0,
    progress: Progress = silent,
    warn: Callable[[str], None] = lambda _: None,
    watch: Callable[[dict[str, float]], None] = lambda _: None,
) -> Trained:
    """Trains an encoder by `config.method` and, unless `config.mark` is "none", the rotation watermark.

    In processes that `torch.distributed` joined, each trains on its part of every batch, and all return the same.

    Args:
        images: `(n, c, h, w)` uint8, c = 1 or 3, in memory or memory-mapped; labels are never used.
        config: what to train.
        key: for `config.mark` "secret", the key to use; a fresh one, from the system's randomness, if not given.
        start: encoder to go on from, of the configuration's architecture; fresh weights if not given; needed to embed,
            and for the architecture "custom", any module inside an `Encoder`.
        device: where to compute.
        checkpoint: file to keep the state in; a run with the same configuration goes on from it, and ends with the same
            weights as one that was never broken (on a GPU, whose sums come in any order, but for rounding).
        save_every: seconds after which the state is kept within an epoch; at the end of an epoch it is in any case.
        progress: called after every step.
        warn: called with a line of advice if the mark or the loss does not learn.
        watch: called with the row of metrics of every epoch, those of before an interruption first.

    Returns:
        The trained parts, on the CPU, in eval mode.

    Raises:
        TrainingError: if there are too few images, `start` is of another architecture, the encoder cannot take the
            images, or the loss is no longer finite.
    """
    check_images(images, TrainingError, minimum=max(8, min(config.batch_size, 32)))
    state = State(config, images, torch.device(device), key, start)
    state.restore(checkpoint)
    for row in state.metrics:
        watch(row)
    if state.device.type != "cpu":
        images = _near(images, state.device)
    total, saved = config.epochs * state.steps_per_epoch, time.monotonic()
    while state.epoch < config.epochs:
        for batch in state.batches(len(images)):
            with compile_errors():
                state.step(as_input(beside(images[beside(batch, images)], state.sums)))
            progress("training", state.epoch * state.steps_per_epoch + state.done, total)
            whole = state.done % config.accumulate == 0 and state.done < state.steps_per_epoch
            if whole and time.monotonic() - saved >= save_every:
                state.save(checkpoint)
                saved = time.monotonic()
        state.end_epoch()
        watch(state.metrics[-1])
        if state.epoch == max(3, round(PATIENCE * config.epochs)):
            for line in unlearnt(state.metrics):
                warn(line)
        state.save(checkpoint)
        saved = time.monotonic()
    if state.watermark is not None:
        # asks the encoder less than one more pass does; an embedded mark's thieves answer as the unmarked model, too
        state.watermark.refit(state.encoder, images, against=None if config.method == "embed" else start)
    return _result(state)


def unlearnt(metrics: list[dict[str, float]]) -> list[str]:
    """Returns advice if, from these epochs, the mark or the method's own loss does not learn."""
    first, last = metrics[0], metrics[-1]
    out = []
    if last.get("watermark_accuracy", 1.0) < UNLEARNT:
        out.append(
            f"the mark is not being learnt: {last['watermark_accuracy']:.2f} of rotated views are told apart after "
            f"{last['epoch']:.0f} passes, chance is .50 "
            "(raise --watermark-fraction to .5, or --lr; do the images have an up and down?)"
        )
    if len(metrics) > 1 and not last["contrastive_loss"] < first["contrastive_loss"]:
        out.append(
            f"the loss does not fall: {first['contrastive_loss']:.3f} at first, {last['contrastive_loss']:.3f} after "
            f"{last['epoch']:.0f} passes (lower --lr, or raise --batch-size)"
        )
    return out


def _near(images: Tensor, device: torch.device) -> Tensor:
    """The images on the device, where they take no more than a quarter of its free memory."""
    if device.type == "cuda" and images.nbytes > torch.cuda.mem_get_info(device)[0] / 4:
        return images
    return images.to(device)


def _result(state: State) -> Trained:
    encoder = state.encoder
    state.optimizer.zero_grad(set_to_none=True)
    if any(isinstance(m, nn.SyncBatchNorm) for m in encoder.modules()):  # whose files should need no other processes
        custom = state.start if state.config.arch == CUSTOM else None
        plain = make_encoder(state.config.arch) if custom is None else copy.deepcopy(custom)
        plain.load_state_dict(encoder.state_dict())
        encoder = plain
    parts = [encoder, *state.objective.modules().values()]
    parts += [] if state.watermark is None else [state.watermark.predictor]
    for module in parts:
        module.to("cpu").to(memory_format=torch.contiguous_format).eval()
    return Trained(
        config=state.config,
        encoder=encoder,
        projection_head=state.objective.modules().get("head"),
        predictor=None if state.watermark is None else state.watermark.predictor,
        key=state.key,
        metrics=state.metrics,
    )
