"""Self-supervised training with the rotation watermark, jointly with the rotation predictor; and retrofitting it.

Paper, section 5.1: "the encoder optimizes both the training and watermarking objectives". Each step is one forward
pass over two contrastive views of every image and two rotated views of some of them, one loss, one update of
encoder, projection head and predictor together (the released code alternates and never trains the predictor; see
docs/adr/0002). The method "embed" adds the mark to an encoder that exists; beside the mark it learns to answer as
before (docs/adr/0009).
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownership.architectures import Encoder
from ownership.errors import TrainingError, printable
from ownership.files import Progress, canonical_json, sha256, silent, write_bytes
from ownership.images import as_input, check_images, images_sha256, three_channels
from ownership.watermark import RotationPredictor, WatermarkKey, paper_key
from watermark_training.config import TrainConfig
from watermark_training.device import autocast, seeded, seeded_architecture
from watermark_training.mark import RotationWatermark, fresh_key
from watermark_training.objectives import Contrastive, Keeping, Objective

COLLAPSED = 0.01
"""Spread of the answers below which training stops: the standard deviation over images of answers scaled to length 1,
times sqrt(d); 1 for answers in all directions, 0 for one answer to all (Chen and He 2021, figure 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What `train` returns: the encoder, its head, and for a marked one the predictor and the key (secret)."""

    config: TrainConfig
    encoder: Encoder
    projection_head: nn.Module | None  # none after "embed"
    predictor: RotationPredictor | None
    key: WatermarkKey | None
    metrics: list[dict[str, float]]  # one row an epoch: epoch, contrastive_loss, spread, mark_loss, mark_accuracy


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
) -> Trained:
    """Trains an encoder by `config.method` and, unless `config.mark` is "none", the rotation watermark.

    Args:
        images: `(n, c, h, w)` uint8, c = 1 or 3; labels are never used.
        config: what to train.
        key: for `config.mark` "secret", the key to use; a fresh one, from the system's randomness, if not given.
        start: encoder of the configuration's architecture to go on from; fresh weights if not given; needed to embed.
        device: where to compute.
        checkpoint: file to keep the state in; a run with the same configuration goes on from it, and ends with the same
            weights as one that was never broken.
        save_every: seconds after which the state is kept within an epoch; at the end of an epoch it is in any case.
        progress: called after every step.

    Returns:
        The trained parts, on the CPU, in eval mode.

    Raises:
        TrainingError: if there are too few images, `start` is of another architecture, or the loss is no longer finite.
    """
    check_images(images, TrainingError, minimum=max(8, min(config.batch_size, 32)))
    state = _State(config, images, torch.device(device), key, start)
    state.restore(checkpoint)
    images = images.to(device)
    total, saved = config.epochs * state.steps_per_epoch, time.monotonic()
    while state.epoch < config.epochs:
        for batch in state.batches(len(images)):
            state.step(as_input(images[batch.to(images.device)]))
            progress("training", state.epoch * state.steps_per_epoch + state.done, total)
            if time.monotonic() - saved >= save_every and state.done < state.steps_per_epoch:
                state.save(checkpoint)
                saved = time.monotonic()
        state.end_epoch()
        state.save(checkpoint)
        saved = time.monotonic()
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
            self.key = fresh_key()
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
        if config.method == "embed" and start is None:
            raise TrainingError("there is no encoder to embed the mark in", "turnmark embed MODEL DATA")
        self.mark = None
        if self.key is not None:
            self.mark = RotationWatermark(
                self.encoder.dim, self.key, share=config.mark_images, weight=config.mark_weight
            ).to(device)
        self.encoder.to(device).to(memory_format=torch.channels_last)
        self.objective: Objective
        with seeded(self.generator):
            embeds = config.method == "embed"
            self.objective = Keeping(self.encoder) if embeds else Contrastive(config, self.encoder.dim)
        for module in self.objective.modules().values():
            module.to(device)
        self.batch_size = min(config.batch_size, n)
        self.steps_per_epoch = n // self.batch_size
        self.optimizer = torch.optim.Adam(self._parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, T_max=config.epochs * self.steps_per_epoch
        )
        self.metrics: list[dict[str, float]] = []
        self.epoch = 0  # epochs done
        self.done = 0  # steps done of this one
        self.order = torch.zeros(0, dtype=torch.int64)  # images of this epoch; drawn when it begins
        self.sums = torch.zeros(3)  # of this epoch: the two losses and the mark accuracy
        self.spread = 1.0  # of the answers to the epoch's last batch

    def _modules(self) -> dict[str, nn.Module]:
        marked = {} if self.mark is None else {"predictor": self.mark.predictor}
        return {"encoder": self.encoder, **self.objective.modules(), **marked}

    def _parameters(self) -> list[nn.Parameter]:
        return [p for module in self._modules().values() for p in module.parameters()]

    def batches(self, n: int) -> Iterator[Tensor]:
        """Yields what is left of this epoch's batches, as indices of images."""
        if self.done == 0:
            self.order = torch.randperm(n, generator=self.generator)
            self.sums = torch.zeros(3)
        whole = torch.split(self.order[: self.steps_per_epoch * self.batch_size], self.batch_size)
        yield from whole[self.done :]

    def end_epoch(self) -> None:
        """Notes the epoch's means.

        Raises:
            TrainingError: if a loss is no longer finite, or every image gets the same answer.
        """
        contrastive, mark, accuracy = (self.sums / self.steps_per_epoch).tolist()
        self.epoch, self.done = self.epoch + 1, 0
        if not math.isfinite(contrastive + mark):
            raise TrainingError(
                f"the loss is no longer finite in epoch {self.epoch}", "lower --lr, or use --precision float32"
            )
        if self.spread < COLLAPSED:
            raise TrainingError(
                f"the representation collapsed in epoch {self.epoch}: all images get nearly the same answer",
                "raise --batch-size, lower --lr, or use another --method",
            )
        row = {"epoch": float(self.epoch), "contrastive_loss": contrastive, "spread": self.spread}
        if self.key is not None:
            row |= {"mark_loss": mark, "mark_accuracy": accuracy}
        self.metrics.append(row)

    def step(self, images: Tensor) -> None:
        """One update on images `(b, c, h, w)` in `[0, 1]`."""
        views = self.objective.views(images, self.generator)
        upright, labels = sum(map(len, views)), None
        if self.mark is not None:
            marked, labels = self.mark.views(images, self.generator)
            views.append(marked)
        x = three_channels(torch.cat(views)).contiguous(memory_format=torch.channels_last)
        for name, module in self._modules().items():
            # running statistics were not taken on rotated images: embedding leaves them as they are
            module.train(name != "encoder" or self.config.method != "embed")
        mark = accuracy = torch.zeros(())
        with autocast(self.device, self.config.precision):
            representations = self.encoder(x)
            learnt = self.objective.loss(representations[:upright], x[:upright])
            if self.mark is not None and labels is not None:
                mark = self.mark.loss(representations[upright:], labels)
                accuracy = self.mark.accuracy
        loss = learnt + mark
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        unweighted = mark.detach().cpu() / self.config.mark_weight
        if self.done + 1 == self.steps_per_epoch:
            answers = F.normalize(representations[:upright].detach().float(), dim=1)
            self.spread = float(answers.std(0).mean()) * math.sqrt(answers.shape[1])
        self.sums += torch.stack([learnt.detach().cpu(), unweighted, accuracy.cpu()])
        self.done += 1

    def _tensors(self) -> dict[str, Any]:
        return {name: module.state_dict() for name, module in self._modules().items()} | {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
        }

    def save(self, checkpoint: Path | None) -> None:
        if checkpoint is None:
            return
        buffer = io.BytesIO()
        torch.save(
            {
                "config": self.config.to_dict(),
                "data": self.data,
                "key": None if self.key is None else self.key.to_dict(),
                "epoch": self.epoch,
                "done": self.done,
                "order": self.order,
                "sums": self.sums,
                "metrics": self.metrics,
                "state": self._tensors(),
            },
            buffer,
        )
        write_bytes(checkpoint, buffer.getvalue(), secret=True)

    def restore(self, checkpoint: Path | None) -> None:
        """Goes on from a checkpoint, if there is one.

        Raises:
            TrainingError: if it is damaged, or of another configuration, other data or another key.
        """
        if checkpoint is None or not checkpoint.is_file():
            return
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
            self.epoch, self.done = int(stored["epoch"]), int(stored["done"])
            self.order, self.sums = stored["order"].cpu(), stored["sums"].cpu()
            self.metrics = list(stored["metrics"])
            self.key = key
            if self.mark is not None and key is not None:
                self.mark.key = key
        except TrainingError:
            raise
        except Exception as e:
            raise TrainingError(f"checkpoint {checkpoint} cannot be read", "delete it to start afresh") from e

    def result(self) -> Trained:
        for module in self._modules().values():
            module.to("cpu").to(memory_format=torch.contiguous_format).eval()
        return Trained(
            config=self.config,
            encoder=self.encoder,
            projection_head=self.objective.modules().get("head"),
            predictor=None if self.mark is None else self.mark.predictor,
            key=self.key,
            metrics=self.metrics,
        )
