"""Self-supervised training with the rotation watermark: SimCLR jointly with the rotation predictor.

Paper, section 5.1: "the encoder optimizes both the training and watermarking objectives". Each step is one forward
pass over two contrastive views of every image and two rotated views of some of them, one loss, one update of
encoder, projection head and predictor together (the released code alternates and never trains the predictor; see
docs/adr/0002).
"""

from __future__ import annotations

import io
import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownership.architectures import Encoder
from ownership.claim import projection_head
from ownership.errors import TrainingError, printable
from ownership.files import Progress, canonical_json, sha256, silent, write_bytes
from ownership.images import as_input, check_images, images_sha256, three_channels
from ownership.watermark import TURN, RotationPredictor, WatermarkKey, paper_key, rotate, rotated_pairs, secret_key
from watermark_training.augment import simclr_view
from watermark_training.config import TrainConfig
from watermark_training.device import autocast, seeded, seeded_architecture
from watermark_training.losses import barlow_loss, nt_xent_loss, simsiam_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What `train` returns: the encoder, its head, and for a marked one the predictor and the key (secret)."""

    config: TrainConfig
    encoder: Encoder
    projection_head: nn.Module
    predictor: RotationPredictor | None
    key: WatermarkKey | None
    metrics: list[dict[str, float]]  # one row an epoch: epoch, contrastive_loss, mark_loss, mark_accuracy


def make_heads(method: str, dim: int, out: int) -> tuple[nn.Sequential, nn.Sequential | None]:
    """Returns the projection head of a method and, for SimSiam, its prediction head.

    SimCLR: Linear(d, d) - ReLU - Linear(d, out), no normalisation (the paper's released code). SimSiam and Barlow
    Twins: BatchNorm after the first layer; SimSiam's prediction head has a bottleneck of out / 4 (Chen and He 2021).
    """
    if method == "simclr":
        return projection_head(dim, dim, out), None
    head = projection_head(dim, 2 * out, out, normalised=True)
    return head, projection_head(out, max(2, out // 4), out, normalised=True) if method == "simsiam" else None


def train(
    images: Tensor,
    config: TrainConfig,
    *,
    key: WatermarkKey | None = None,
    start: Encoder | None = None,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Trained:
    """Trains an encoder with SimCLR and, unless `config.mark` is "none", the rotation watermark.

    Args:
        images: `(n, c, h, w)` uint8, c = 1 or 3; labels are never used.
        config: what to train.
        key: for `config.mark` "secret", the key to use; a fresh one, from the system's randomness, if not given.
        start: encoder of the configuration's architecture to go on from; fresh weights if not given.
        device: where to compute.
        checkpoint: file to keep the state in after every epoch; a run with the same configuration goes on from it.
        progress: called after every step.

    Returns:
        The trained parts, on the CPU, in eval mode.

    Raises:
        TrainingError: if there are too few images, `start` is of another architecture, or the loss is no longer finite.
    """
    check_images(images, TrainingError, minimum=max(8, min(config.batch_size, 32)))
    state = _State(config, images, torch.device(device), key, start)
    done = state.restore(checkpoint)
    images = images.to(device)
    total = config.epochs * state.steps_per_epoch
    for epoch in range(done, config.epochs):
        sums = torch.zeros(3)
        for step, batch in enumerate(state.batches(len(images))):
            sums += state.step(as_input(images[batch.to(images.device)]))
            progress("training", epoch * state.steps_per_epoch + step + 1, total)
        contrastive, mark, accuracy = (sums / state.steps_per_epoch).tolist()
        if not math.isfinite(contrastive + mark):
            raise TrainingError(
                f"the loss is no longer finite in epoch {epoch + 1}", "lower --lr, or use --precision float32"
            )
        row = {"epoch": epoch + 1.0, "contrastive_loss": contrastive}
        if state.key is not None:
            row |= {"mark_loss": mark, "mark_accuracy": accuracy}
        state.metrics.append(row)
        state.save(checkpoint, epoch + 1)
    return state.result()


class _State:
    """Everything that changes during training; what `save` stores and `restore` brings back."""

    def __init__(
        self,
        config: TrainConfig,
        images: Tensor,
        device: torch.device,
        key: WatermarkKey | None,
        start: Encoder | None,
    ) -> None:
        self.config, self.device, self.given_key = config, device, key
        self.data, n = images_sha256(images), len(images)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.key = key
        if config.mark == "paper":
            self.key = paper_key(config.seed)
        elif config.mark == "none":
            self.key = None
        elif key is None:  # never from config.seed, which is published with the encoder
            self.key = secret_key(torch.Generator().manual_seed(secrets.randbits(63)))
        if config.mark == "secret" and self.key is not None:
            # a stranger with our defaults, data and seed would otherwise share initial weights and order, and with
            # them some of what partial RSA takes for peculiar to the victim
            secret = sha256(canonical_json(self.key.to_dict()))[:12]
            self.generator.manual_seed(config.seed ^ int(secret, 16))
        self.encoder = seeded_architecture(config.arch, self.generator)
        if start is not None:
            try:
                self.encoder.load_state_dict(start.state_dict())
            except RuntimeError as e:
                raise TrainingError(f"the encoder to go on from is no {config.arch}", "name its architecture") from e
            # a checkpoint belongs to what the run started from, too
            weights = b"".join(v.numpy().tobytes() for v in self.encoder.state_dict().values())
            self.data += f", from {sha256(weights)}"
        with seeded(self.generator):
            self.head, self.prediction = make_heads(config.method, self.encoder.dim, config.projection_dim)
        self.predictor = None
        if self.key is not None:
            self.predictor = RotationPredictor(self.encoder.dim, self.key.predictor_seed).to(device)
        self.encoder.to(device).to(memory_format=torch.channels_last)
        for module in (self.head, self.prediction):
            if module is not None:
                module.to(device)
        self.batch_size = min(config.batch_size, n)
        self.steps_per_epoch = n // self.batch_size
        self.optimizer = torch.optim.Adam(self._parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, T_max=config.epochs * self.steps_per_epoch
        )
        self.metrics: list[dict[str, float]] = []

    def _modules(self) -> dict[str, nn.Module]:
        named = {
            "encoder": self.encoder,
            "head": self.head,
            "prediction": self.prediction,
            "predictor": self.predictor,
        }
        return {name: module for name, module in named.items() if module is not None}

    def _parameters(self) -> list[nn.Parameter]:
        return [p for module in self._modules().values() for p in module.parameters()]

    def batches(self, n: int) -> Iterator[Tensor]:
        order = torch.randperm(n, generator=self.generator)
        yield from torch.split(order[: self.steps_per_epoch * self.batch_size], self.batch_size)

    def _view(self, images: Tensor) -> Tensor:
        x = simclr_view(images, self.generator, min_crop=self.config.min_crop, flip=self.config.flip)
        if not self.config.rotate:
            return x
        angles = torch.rand(len(x), generator=self.generator) * TURN
        return rotate(x, angles.to(x.device))

    def _contrastive(self, first: Tensor, second: Tensor) -> Tensor:
        if self.config.method == "barlow":
            return barlow_loss(first, second)
        if self.prediction is not None:
            return simsiam_loss(first, second, self.prediction)
        return nt_xent_loss(first, second, self.config.temperature)

    def step(self, images: Tensor) -> Tensor:
        """One update on images `(b, c, h, w)` in `[0, 1]`; returns the two losses and the mark accuracy."""
        config, b = self.config, len(images)
        views = [self._view(images) for _ in range(2)]
        labels = None
        if self.key is not None:
            marked, labels, _ = rotated_pairs(images[: math.ceil(b * config.mark_images)], self.key, self.generator)
            views.append(marked)
        x = three_channels(torch.cat(views)).contiguous(memory_format=torch.channels_last)
        for module in self._modules().values():
            module.train()
        with autocast(self.device, config.precision):
            representations = self.encoder(x)
            z = self.head(representations[: 2 * b])
            logits = self.predictor(representations[2 * b :]) if self.predictor is not None else None
        contrastive = self._contrastive(z[:b].float(), z[b:].float())
        loss, mark, accuracy = contrastive, torch.zeros(()), torch.zeros(())
        if logits is not None and labels is not None:
            mark = F.cross_entropy(logits.float(), labels)
            accuracy = (logits.argmax(1) == labels).float().mean()
            loss = contrastive + config.mark_weight * mark
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        return torch.stack([contrastive.detach().cpu(), mark.detach().cpu(), accuracy.detach().cpu()])

    def _tensors(self) -> dict[str, Any]:
        return {name: module.state_dict() for name, module in self._modules().items()} | {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
        }

    def save(self, checkpoint: Path | None, epoch: int) -> None:
        if checkpoint is None:
            return
        buffer = io.BytesIO()
        torch.save(
            {
                "config": self.config.to_dict(),
                "data": self.data,
                "key": None if self.key is None else self.key.to_dict(),
                "epoch": epoch,
                "metrics": self.metrics,
                "state": self._tensors(),
            },
            buffer,
        )
        write_bytes(checkpoint, buffer.getvalue(), secret=True)

    def restore(self, checkpoint: Path | None) -> int:
        """Returns the number of epochs already done: 0 without a checkpoint.

        Raises:
            TrainingError: if it is damaged, or of another configuration, other data or another key.
        """
        if checkpoint is None or not checkpoint.is_file():
            return 0
        try:
            stored = torch.load(checkpoint, map_location=self.device, weights_only=True)
            key = None if stored["key"] is None else WatermarkKey.from_dict(stored["key"])
            same = (stored["config"], stored["data"]) == (self.config.to_dict(), self.data)
            if not same or (self.given_key is not None and self.given_key != key):
                raise TrainingError(
                    f"{printable(checkpoint, 300)} is of an unfinished run with another configuration, data or key",
                    "choose another --out, or delete it",
                )
            for name, module in self._modules().items():
                module.load_state_dict(stored["state"][name])
            self.optimizer.load_state_dict(stored["state"]["optimizer"])
            self.schedule.load_state_dict(stored["state"]["schedule"])
            self.generator.set_state(stored["state"]["generator"].cpu())
            self.key = key
        except TrainingError:
            raise
        except Exception as e:
            raise TrainingError(f"checkpoint {checkpoint} cannot be read", "delete it to start afresh") from e
        self.metrics = list(stored["metrics"])
        return int(stored["epoch"])

    def result(self) -> Trained:
        for module in self._modules().values():
            module.to("cpu").to(memory_format=torch.contiguous_format).eval()
        return Trained(
            config=self.config,
            encoder=self.encoder,
            projection_head=self.head,
            predictor=self.predictor,
            key=self.key,
            metrics=self.metrics,
        )
