"""The state of a training run: one step, one epoch, and the checkpoint it is saved to and restored from."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownership.encoders.architectures import Encoder
from ownership.encoders.images import beside, images_sha256, three_channels
from ownership.errors import TrainingError
from ownership.io.canonical import sha256
from ownership.io.files import write_bytes
from ownership.io.text import printable
from ownership.keyed.key import Key
from ownership.keyed.pool import KeyMaterial
from ownership.watermark import WatermarkKey
from watermark_training.config import TrainConfig
from watermark_training.cuda_graphs import CudaGraphRunner
from watermark_training.device import autocast, compiled, seeded
from watermark_training.distributed import average_gradients, from_first_process, mean_over_processes, rank, world_size
from watermark_training.initial import (
    check_takes,
    initial_encoder,
    key_material,
    keyed_seed,
    watermark_key,
    watermark_module,
)
from watermark_training.keyed_watermark import FIT_IMAGES, KeyedWatermark
from watermark_training.objectives import Contrastive, FeaturePreservation, Objective
from watermark_training.watermark import RotationWatermark

COLLAPSED = 0.01
"""Spread of the representations below which training stops: standard deviation over images of representations scaled to
length 1, times sqrt(d). It is 1 for representations in all directions and 0 for one representation of all images (Chen
and He 2021, figure 2)."""


class TrainingRun:
    """Everything that changes during a training run; `save` writes it and `restore` reads it.

    Args:
        config: what to train.
        images: training images `(n, c, h, w)` uint8.
        device: where to compute.
        key: secret key of a rotation watermark; a fresh one if not given.
        start: encoder that training starts from; initial weights are drawn if not given.
        material: key of a keyed watermark; a new one if not given, from images that are then held out.

    Raises:
        TrainingError: if `start` or a key does not fit the configuration, or the encoder cannot take the images.
    """

    def __init__(
        self,
        config: TrainConfig,
        images: Tensor,
        device: torch.device,
        key: WatermarkKey | None,
        start: Encoder | None,
        material: KeyMaterial | None = None,
    ) -> None:
        self.config, self.device, self.start = config, device, start
        self.given_key, self.given_material = key, material
        self.key = watermark_key(config, key)
        self.material, self.rows, self.pool = key_material(config, images, material)  # rows: trained on, None for all
        self.generator = torch.Generator().manual_seed(config.seed)
        secret = self.key if config.watermark == "secret" else None if self.material is None else self.material.key
        if secret is not None:
            self.generator.manual_seed(keyed_seed(config.seed, secret))
        self.encoder = initial_encoder(config, start, self.generator)
        self.data = images_sha256(images)  # with the start, what a checkpoint belongs to
        if start is not None:
            weights = b"".join(v.numpy().tobytes() for v in self.encoder.state_dict().values())
            self.data += f", from {sha256(weights)}"
        check_takes(self.encoder, images[:2])
        self.watermark = watermark_module(config, self.encoder.dim, self.key, self.material)
        self.encoder.to(device).to(memory_format=torch.channels_last)
        with seeded(self.generator):
            embeds = config.method == "embed"
            self.objective: Objective = (
                FeaturePreservation(config, self.encoder) if embeds else Contrastive(config, self.encoder.dim)
            )
        self.shares = embeds and self.material is not None  # the keyed loss reads the images that the objective shows
        self._move_modules()
        if isinstance(self.watermark, KeyedWatermark) and start is not None:
            self.watermark.fit_head(self.encoder, images if self.rows is None else images[self.rows[:FIT_IMAGES]])
            self.watermark.head.load_state_dict(from_first_process(self.watermark.head.state_dict()))
        self.forward = compiled(self.encoder) if config.compile else self.encoder
        graphed = device.type == "cuda" and world_size() == 1 and config.accumulate == 1
        self.graph = CudaGraphRunner() if graphed else None
        count = len(images) if self.rows is None else len(self.rows)
        self.batch_size = min(config.batch_size, count) // world_size() * world_size()
        self.steps_per_epoch = count // self.batch_size
        self.optimizer = torch.optim.Adam(
            self._parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=device.type == "cuda" or None
        )
        updates = config.epochs * math.ceil(self.steps_per_epoch / config.accumulate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=updates)
        self.table: Tensor | None = None  # keyed targets of all images, if `tabulate` computed them
        self.metrics: list[dict[str, float]] = []
        self.epoch = 0  # epochs done
        self.done = 0  # steps of the current epoch done
        self.order = torch.zeros(0, dtype=torch.int64)  # of the current epoch's images; drawn when it begins
        self.sums = torch.zeros(3, device=device)  # over the current epoch: both losses, how well the watermark is read
        self.spread = 1.0  # of the representations of the epoch's last batch

    def _move_modules(self) -> None:
        for module in self._modules().values():
            module.to(self.device)
        if isinstance(self.watermark, KeyedWatermark):
            self.watermark.targets.to(self.device)
        if world_size() > 1 and self.device.type == "cuda":  # on CPUs each process normalizes its own part of a batch
            for module in self._modules().values():  # containers: their layers are replaced in place
                nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]

    def _modules(self) -> dict[str, nn.Module]:
        watermarked = {} if self.watermark is None else self.watermark.trained()
        return {"encoder": self.encoder, **self.objective.modules(), **watermarked}

    def _parameters(self) -> list[nn.Parameter]:
        return [p for module in self._modules().values() for p in module.parameters() if p.requires_grad]

    def batches(self, n: int) -> Iterator[Tensor]:
        """Yield the remaining batches of this epoch, of n images, as their indices: this process's part of each."""
        if self.done == 0:
            if self.rows is None:
                self.order = torch.randperm(n, generator=self.generator)
            else:
                self.order = self.rows[torch.randperm(len(self.rows), generator=self.generator)]
            self.sums = torch.zeros(3, device=self.device)
        whole = torch.split(self.order[: self.steps_per_epoch * self.batch_size], self.batch_size)
        yield from (batch.chunk(world_size())[rank()] for batch in whole[self.done :])

    def end_epoch(self) -> None:
        """Append the epoch's mean metrics.

        Raises:
            TrainingError: if a loss is no longer finite, or the representation collapsed.
        """
        means = torch.cat([self.sums / self.steps_per_epoch, torch.tensor([self.spread], device=self.device)])
        contrastive, watermark, learned, self.spread = mean_over_processes(means).tolist()
        self.epoch, self.done = self.epoch + 1, 0
        if not math.isfinite(contrastive + watermark):
            raise TrainingError(
                f"the loss is no longer finite in epoch {self.epoch}", "lower --lr, or use --precision float32"
            )
        if self.spread < COLLAPSED:
            raise TrainingError(
                f"the representation collapsed in epoch {self.epoch}: it is nearly the same for all images",
                "raise --batch-size, lower --lr, or use another --objective",
            )
        row = {"epoch": float(self.epoch), "contrastive_loss": contrastive, "spread": self.spread}
        if self.watermark is not None:
            row |= dict(zip(self.watermark.METRICS, (watermark, learned), strict=True))
        self.metrics.append(row)

    @property
    def updates(self) -> bool:
        """Whether the next step ends with an update; otherwise the next one adds its gradients to them."""
        return (self.done + 1) % self.config.accumulate == 0 or self.done + 1 == self.steps_per_epoch

    def tabulate(self, images: Tensor) -> None:
        """Compute the keyed targets of all images once, where steps would compute more of them."""
        again = not self.config.keyed_views and self.config.epochs * self.config.keyed_fraction > 1
        if isinstance(self.watermark, KeyedWatermark) and again:
            self.table = self.watermark.table(images)

    def step(self, images: Tensor, rows: Tensor | None = None) -> None:
        """Run forward and backward on a batch, and update if the step completes one.

        Args:
            images: `(b, c, h, w)` in `[0, 1]`.
            rows: their indices among all images, for `table`.
        """
        generator = self.generator
        if world_size() > 1:  # each process draws its own views, seeded at each step so that runs resume
            seed = torch.tensor([self.config.seed, self.epoch, self.done, rank()])
            generator = torch.Generator().manual_seed(int(sha256(seed.numpy().tobytes())[:12], 16))
        views = self.objective.views(images, generator)
        labels: tuple[Tensor, ...] = ()
        if self.watermark is not None:
            shown = views[0] if self.shares else images
            if isinstance(self.watermark, KeyedWatermark) and self.table is not None and rows is not None:
                shown = shown[: self.watermark.shown(len(images))]
                expected = self.table[beside(rows[: len(shown)], images)]
            else:
                shown, expected = self.watermark.views(shown, generator)
            views += [] if self.shares else [shown]
            labels = (expected,)
        x = three_channels(torch.cat(views)).contiguous(memory_format=torch.channels_last)
        for name, module in self._modules().items():
            # the running statistics do not come from rotated images: embedding leaves them unchanged
            mode = name != "encoder" or self.config.method != "embed"
            if module.training != mode:  # setting an unchanged mode makes torch.compile check all its guards again
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
        self.sums += losses  # on the device: reading a number at each step would make the device wait
        self.done += 1

    def _learn(self, x: Tensor, *labels: Tensor) -> tuple[Tensor, Tensor]:
        """Run forward and backward on all views `x`, those of the watermark last; add to the update's gradients.

        Returns:
            Both losses and how well the watermark is read, `(3,)`; the representations of the method's own views.
        """
        begun = self.done // self.config.accumulate * self.config.accumulate
        if self.done == begun:
            self.optimizer.zero_grad(set_to_none=True)
        own = len(x) if self.shares else len(x) - sum(map(len, labels))
        watermark = learned = torch.zeros((), device=self.device)
        with autocast(self.device, self.config.precision):
            if isinstance(self.watermark, KeyedWatermark) and not self.shares:
                # in a pass of their own: in one batch with views, the normalization of both would suffer
                representations = torch.cat([self.forward(x[:own]), self.forward(x[own:])])
            else:
                representations = self.forward(x)
            objective = self.objective.loss(representations[:own], x[:own])
            if self.watermark is not None:
                read = representations[: len(labels[0])] if self.shares else representations[own:]
                watermark, learned = self.watermark.loss(read, *labels), self.watermark.learned
        # the steps of one update; the last update of an epoch may have fewer
        loss = (objective + watermark) / min(self.config.accumulate, self.steps_per_epoch - begun)
        loss.backward()  # type: ignore[no-untyped-call]
        weight = 1.0 if self.watermark is None else self.watermark.weight
        losses = torch.stack([objective.detach(), watermark.detach() / weight, learned])
        return losses, representations[:own].detach()

    def _tensors(self) -> dict[str, Any]:
        return {name: module.state_dict() for name, module in self._modules().items()} | {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
        }

    def save(self, checkpoint: Path | None) -> None:
        """Write the state; only the first process does."""
        if checkpoint is None or rank() > 0:
            return
        buffer = io.BytesIO()
        torch.save(
            {
                "config": self.config.to_dict(),
                "data": self.data,
                "key": None if self.key is None else self.key.to_dict(),
                "keyed": None if self.material is None else self.material.key.to_dict(),
                "processes": world_size(),
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
        """Continue from a checkpoint, if there is one.

        Raises:
            TrainingError: if it is damaged, or belongs to another configuration, other data or another key.
        """
        if checkpoint is None or not from_first_process(checkpoint.is_file()):
            return
        try:
            stored = torch.load(checkpoint, map_location=self.device, weights_only=True)
            key = None if stored["key"] is None else WatermarkKey.from_dict(stored["key"])
            keyed = None if stored["keyed"] is None else Key.from_dict(stored["keyed"])
            ours = (self.config.to_dict(), self.data, world_size())
            same = (stored["config"], stored["data"], stored["processes"]) == ours
            same &= self.given_key in (None, key)
            same &= self.given_material is None or self.given_material.key == keyed
            if not same:
                raise TrainingError(
                    f"{printable(checkpoint, 300)} belongs to an unfinished run with another configuration, data, key "
                    "or number of processes",
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
            if isinstance(self.watermark, KeyedWatermark) and keyed is not None and self.pool is not None:
                self.material = KeyMaterial.draw(keyed, self.pool)
                self.watermark.use(self.material)
                self.watermark.targets.to(self.device)
            elif isinstance(self.watermark, RotationWatermark) and key is not None:
                self.watermark.key = key
        except TrainingError:
            raise
        except Exception as e:
            raise TrainingError(
                f"checkpoint {printable(checkpoint, 300)} cannot be read", "delete it to start again"
            ) from e
