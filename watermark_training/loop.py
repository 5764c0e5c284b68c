"""Everything that changes during a training run: one step, one epoch, what is kept and brought back."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownership.encoders.architectures import CUSTOM, Encoder
from ownership.encoders.images import as_input, images_sha256, three_channels
from ownership.errors import TrainingError
from ownership.io.canonical import canonical_json, sha256
from ownership.io.files import write_bytes
from ownership.io.text import printable
from ownership.watermark import WatermarkKey, paper_key
from watermark_training.config import TrainConfig
from watermark_training.cuda_graphs import Graph
from watermark_training.device import autocast, compiled, seeded, seeded_architecture
from watermark_training.distributed import average_gradients, mean_over_processes, of_first, rank, world
from watermark_training.objectives import Contrastive, FeaturePreservation, Objective
from watermark_training.watermark import RotationWatermark, fresh_key

COLLAPSED = 0.01
"""Spread of the answers below which training stops: the standard deviation over images of answers scaled to length 1,
times sqrt(d); 1 for answers in all directions, 0 for one answer to all (Chen and He 2021, figure 2)."""


class State:
    """The moving parts of one run; what `save` stores and `restore` brings back."""

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
        if config.watermark == "paper":
            self.key = paper_key(config.seed)
        elif config.watermark == "none":
            self.key = None
        elif key is None:  # never from config.seed, which is published with the encoder
            self.key = of_first(fresh_key())
        if config.watermark == "secret" and self.key is not None:
            # a stranger with our defaults, data and seed would otherwise share initial weights and order, and with
            # them some of what partial RSA takes for peculiar to the victim
            secret = sha256(canonical_json(self.key.to_dict()))[:12]
            self.generator.manual_seed(config.seed ^ int(secret, 16))
        self.encoder = self._make_encoder(start)
        self.start = start
        if start is not None:
            # a checkpoint belongs to what the run started from, too
            weights = b"".join(v.numpy().tobytes() for v in self.encoder.state_dict().values())
            self.data += f", from {sha256(weights)}"
        _check_takes(self.encoder, images[:2])
        self.watermark = None
        if self.key is not None:
            self.watermark = RotationWatermark(
                self.encoder.dim,
                self.key,
                share=config.watermark_fraction,
                weight=config.watermark_weight,
                trained=config.predictor == "trained",
            ).to(device)
        self.encoder.to(device).to(memory_format=torch.channels_last)
        self.objective: Objective
        with seeded(self.generator):
            embeds = config.method == "embed"
            self.objective = FeaturePreservation(self.encoder) if embeds else Contrastive(config, self.encoder.dim)
        for module in self.objective.modules().values():
            module.to(device)
        if world() > 1 and device.type == "cuda":  # elsewhere each process normalises with its own part of the batch
            for module in self._modules().values():  # containers: their layers are replaced in place
                nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        self.forward = compiled(self.encoder) if config.compile else self.encoder
        self.graph = Graph() if device.type == "cuda" and world() == 1 and config.accumulate == 1 else None
        self.batch_size = min(config.batch_size, n) // world() * world()
        self.steps_per_epoch = n // self.batch_size
        self.optimizer = torch.optim.Adam(
            self._parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=device.type == "cuda" or None
        )
        updates = config.epochs * math.ceil(self.steps_per_epoch / config.accumulate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=updates)
        self.metrics: list[dict[str, float]] = []
        self.epoch = 0  # epochs done
        self.done = 0  # steps done of this one
        self.order = torch.zeros(0, dtype=torch.int64)  # images of this epoch; drawn when it begins
        self.sums = torch.zeros(3, device=device)  # of this epoch: the two losses and the mark accuracy
        self.spread = 1.0  # of the answers to the epoch's last batch

    def _make_encoder(self, start: Encoder | None) -> Encoder:
        arch = self.config.arch
        if start is None:
            if arch == CUSTOM:
                raise TrainingError(
                    "a custom architecture needs an encoder to start from", "train(..., start=Encoder(...))"
                )
            if self.config.method == "embed":
                raise TrainingError("there is no encoder to embed the mark in", "turnmark embed MODEL DATA")
            return seeded_architecture(arch, self.generator)
        if arch == CUSTOM:
            return copy.deepcopy(start)
        encoder = seeded_architecture(arch, self.generator)
        try:
            encoder.load_state_dict(start.state_dict())
        except RuntimeError as e:
            raise TrainingError(f"the encoder to go on from is no {arch}", "name its architecture") from e
        return encoder

    def _modules(self) -> dict[str, nn.Module]:
        watermarked = {} if self.watermark is None else {"predictor": self.watermark.predictor}
        return {"encoder": self.encoder, **self.objective.modules(), **watermarked}

    def _parameters(self) -> list[nn.Parameter]:
        return [p for module in self._modules().values() for p in module.parameters() if p.requires_grad]

    def batches(self, n: int) -> Iterator[Tensor]:
        """Yields what is left of this epoch's batches, as indices of images: this process's part of each."""
        if self.done == 0:
            self.order = torch.randperm(n, generator=self.generator)
            self.sums = torch.zeros(3, device=self.device)
        whole = torch.split(self.order[: self.steps_per_epoch * self.batch_size], self.batch_size)
        yield from (batch.chunk(world())[rank()] for batch in whole[self.done :])

    def end_epoch(self) -> None:
        """Notes the epoch's means.

        Raises:
            TrainingError: if a loss is no longer finite, or every image gets the same answer.
        """
        means = torch.cat([self.sums / self.steps_per_epoch, torch.tensor([self.spread], device=self.device)])
        contrastive, watermark, accuracy, self.spread = mean_over_processes(means).tolist()
        self.epoch, self.done = self.epoch + 1, 0
        if not math.isfinite(contrastive + watermark):
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
            row |= {"watermark_loss": watermark, "watermark_accuracy": accuracy}
        self.metrics.append(row)

    @property
    def updates(self) -> bool:
        """Whether the step that comes ends with an update; else its gradients wait for those of the next."""
        return (self.done + 1) % self.config.accumulate == 0 or self.done + 1 == self.steps_per_epoch

    def step(self, images: Tensor) -> None:
        """One forward and backward pass on images `(b, c, h, w)` in `[0, 1]`, and mostly an update."""
        generator = self.generator
        if world() > 1:  # the same order everywhere, but views of one's own; anew each step, so that runs resume
            seed = torch.tensor([self.config.seed, self.epoch, self.done, rank()])
            generator = torch.Generator().manual_seed(int(sha256(seed.numpy().tobytes())[:12], 16))
        views = self.objective.views(images, generator)
        labels: tuple[Tensor, ...] = ()
        if self.watermark is not None:
            watermarked, arcs = self.watermark.views(images, generator)
            views.append(watermarked)
            labels = (arcs,)
        x = three_channels(torch.cat(views)).contiguous(memory_format=torch.channels_last)
        for name, module in self._modules().items():
            # running statistics were not taken on rotated images: embedding leaves them as they are
            mode = name != "encoder" or self.config.method != "embed"
            if module.training != mode:  # to set what is set makes torch.compile check all its assumptions again
                module.train(mode)
        if self.graph is None:
            losses, responses = self._learn(x, *labels)
        else:
            losses, responses = self.graph(self._learn, x, *labels)
        if self.updates:
            average_gradients(self._parameters())
            self.optimizer.step()
            self.schedule.step()
        if self.done + 1 == self.steps_per_epoch:
            responses = F.normalize(responses.float(), dim=1)
            self.spread = float(responses.std(0).mean()) * math.sqrt(responses.shape[1])
        self.sums += losses  # on the device: to ask for a number each step would leave it idle until the next
        self.done += 1

    def _learn(self, x: Tensor, *labels: Tensor) -> tuple[Tensor, Tensor]:
        """The passes on all views `x`, the marked ones last; gradients are added to those of the same update.

        Returns:
            The two losses and the mark accuracy, `(3,)`; the answers to the views that are not of the mark.
        """
        begun = self.done // self.config.accumulate * self.config.accumulate
        if self.done == begun:
            self.optimizer.zero_grad(set_to_none=True)
        upright = len(x) - sum(map(len, labels))
        watermark = accuracy = torch.zeros((), device=self.device)
        with autocast(self.device, self.config.precision):
            representations = self.forward(x)
            learnt = self.objective.loss(representations[:upright], x[:upright])
            if self.watermark is not None:
                watermark = self.watermark.loss(representations[upright:], *labels)
                accuracy = self.watermark.accuracy
        # the steps of one update, the last of an epoch perhaps fewer
        loss = (learnt + watermark) / min(self.config.accumulate, self.steps_per_epoch - begun)
        loss.backward()  # type: ignore[no-untyped-call]
        losses = torch.stack([learnt.detach(), watermark.detach() / self.config.watermark_weight, accuracy])
        return losses, representations[:upright].detach()

    def _tensors(self) -> dict[str, Any]:
        return {name: module.state_dict() for name, module in self._modules().items()} | {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
        }

    def save(self, checkpoint: Path | None) -> None:
        """Writes everything; the first process does."""
        if checkpoint is None or rank() > 0:
            return
        buffer = io.BytesIO()
        torch.save(
            {
                "config": self.config.to_dict(),
                "data": self.data,
                "key": None if self.key is None else self.key.to_dict(),
                "processes": world(),
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
        if checkpoint is None or not of_first(checkpoint.is_file()):
            return
        try:
            stored = torch.load(checkpoint, map_location=self.device, weights_only=True)
            key = None if stored["key"] is None else WatermarkKey.from_dict(stored["key"])
            ours = (self.config.to_dict(), self.data, world())
            same = (stored["config"], stored["data"], stored.get("processes", 1)) == ours
            if not same or (self.given_key is not None and self.given_key != key):
                raise TrainingError(
                    f"{printable(checkpoint, 300)} is of an unfinished run with another configuration, data, key or "
                    "number of processes",
                    "choose another --out, or delete it",
                )
            for name, module in self._modules().items():
                module.load_state_dict(stored["state"][name])
            self.optimizer.load_state_dict(stored["state"]["optimizer"])
            self.schedule.load_state_dict(stored["state"]["schedule"])
            self.generator.set_state(stored["state"]["generator"].cpu())
            self.epoch, self.done = int(stored["epoch"]), int(stored["done"])
            self.order, self.sums = stored["order"].cpu(), stored["sums"].to(self.device)
            self.metrics = list(stored["metrics"])
            self.key = key
            if self.watermark is not None and key is not None:
                self.watermark.key = key
        except TrainingError:
            raise
        except Exception as e:
            raise TrainingError(f"checkpoint {checkpoint} cannot be read", "delete it to start afresh") from e


def _check_takes(encoder: Encoder, images: Tensor) -> None:
    """Raises TrainingError unless the encoder takes images of this size, and gives what it says it gives."""
    try:
        with torch.no_grad():
            shape = tuple(encoder.eval()(three_channels(as_input(images))).shape)
    except Exception as e:  # what a network cannot take, it says in errors of every kind
        raise TrainingError(
            f"the encoder cannot take images of {images.shape[-2]} x {images.shape[-1]} ({printable(e, 120)})",
            "give them the size it is made for (--size), or use another architecture",
        ) from e
    if shape != (len(images), encoder.dim):
        raise TrainingError(
            f"the encoder answers {len(images)} images with {shape}", f"({len(images)}, {encoder.dim}) is expected"
        )
