"""Direct extraction: training a surrogate on a victim's answers (paper, Algorithm 1)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from attacks_for_eval.losses import LOSSES
from ownership.architectures import ARCHITECTURES, Encoder
from ownership.errors import TrainingError
from ownership.files import Progress, silent
from ownership.images import EncoderLike, as_input, check_images, represent, three_channels
from watermark_training.train import autocast, seeded_architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionConfig:
    """What `extract` needs to know; defaults follow the paper's released code, except one optimiser for all losses."""

    loss: str = "mse"  # name in LOSSES
    arch: str = "resnet18"  # name in ownership.ARCHITECTURES; "similar architecture as f_v" (Algorithm 1, line 1)
    queries: int = 9000  # images sent to the victim, each once, unaugmented
    epochs: int = 100  # passes over the answers
    batch_size: int = 256  # images a step (the released code takes 64 for MSE)
    lr: float = 1e-3  # Adam, cosine schedule to zero
    weight_decay: float = 1e-4
    seed: int = 0  # which images are asked, initial weights, order
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise TrainingError(f"unknown loss {self.loss!r}", f"one of: {', '.join(LOSSES)}")
        if self.arch not in ARCHITECTURES:
            raise TrainingError(f"unknown architecture {self.arch!r}", f"one of: {', '.join(ARCHITECTURES)}")
        for name, low in (("queries", 8), ("epochs", 1), ("batch_size", 8)):
            if getattr(self, name) < low:
                raise TrainingError(f"{name} is {getattr(self, name)}", f"at least {low}")
        if not self.lr > 0:
            raise TrainingError(f"lr is {self.lr}", "must be above 0")

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as JSON-ready values."""
        return asdict(self)


class BlackBox:
    """The victim as a thief sees it: images in, representations out, every answer counted.

    Args:
        encoder: the victim.
        batch_size: images a call.
    """

    def __init__(self, encoder: EncoderLike, batch_size: int = 256) -> None:
        self._encoder = encoder
        self._batch_size = batch_size
        self.queries = 0  # images answered so far, repeated ones too

    def __call__(self, images: Tensor) -> Tensor:
        """Returns representations `(n, d)` of uint8 images `(n, c, h, w)`."""
        self.queries += len(images)
        return represent(self._encoder, images, batch_size=self._batch_size)


def extract(
    victim: BlackBox,
    images: Tensor,
    config: ExtractionConfig,
    *,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Encoder:
    """Trains a surrogate of `victim` by direct extraction.

    The queries are not augmented (t(x) = x, the paper's default for MSE, InfoNCE and SoftNN), so every image is
    asked once and its answer kept.

    Args:
        victim: the encoder behind its counter.
        images: `(n, c, h, w)` uint8 to choose the queries from.
        config: what to train and how.
        device: where the surrogate is trained.
        progress: called after every step.

    Returns:
        The surrogate, on the CPU, in eval mode.

    Raises:
        TrainingError: if there are fewer images than queries, or the dimensions do not fit.
    """
    check_images(images, TrainingError)
    if len(images) < config.queries:
        raise TrainingError(f"{config.queries} queries from {len(images)} images", "lower --queries, or give more data")
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(len(images), generator=generator)[: config.queries]
    surrogate = seeded_architecture(config.arch, generator).to(device).to(memory_format=torch.channels_last)
    asked = images[chosen]
    answers = victim(asked).to(device)
    if answers.shape[1] != surrogate.dim:
        raise TrainingError(
            f"{config.arch} gives {surrogate.dim} numbers an image, the victim {answers.shape[1]}",
            "choose an --arch of the victim's dimension",
        )
    asked = asked.to(device)
    batch = min(config.batch_size, len(asked))
    steps = len(asked) // batch
    optimizer = torch.optim.Adam(surrogate.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs * steps)
    loss_function = LOSSES[config.loss]
    surrogate.train()
    for epoch in range(config.epochs):
        order = torch.randperm(len(asked), generator=generator)[: steps * batch].to(device)
        for step, rows in enumerate(torch.split(order, batch)):
            x = three_channels(as_input(asked[rows])).contiguous(memory_format=torch.channels_last)
            with autocast(torch.device(device), config.precision):
                own = surrogate(x)
            loss = loss_function(own.float(), answers[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress("extracting", epoch * steps + step + 1, config.epochs * steps)
        if not bool(torch.isfinite(loss)):
            raise TrainingError(f"the loss is no longer finite in epoch {epoch + 1}", "lower the learning rate")
    return surrogate.to("cpu").to(memory_format=torch.contiguous_format).eval()
