"""Direct extraction: training a surrogate on a victim's answers (paper, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attacks_for_eval.black_box import BlackBox, buy
from attacks_for_eval.losses import HEADED, LABELLED, LOSSES
from ownership.architectures import ARCHITECTURES, Encoder
from ownership.errors import TrainingError
from ownership.files import Progress, silent
from ownership.images import as_input, as_uint8, check_images, three_channels
from ownership.watermark import TURN, rotate
from watermark_training.augment import simclr_view
from watermark_training.train import autocast, seeded, seeded_architecture

View = Literal["none", "standard", "rotation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionConfig:
    """What `extract` needs to know; defaults follow the paper's released code, except one optimiser for all losses.

    The two views are t' and t of Algorithm 1. Theft with rotated queries is `victim_view="rotation"`; rotation-
    invariant theft, which tries to remove the mark, is `victim_view="none", surrogate_view="rotation"`.
    """

    loss: str = "mse"  # name in LOSSES
    arch: str = "resnet18"  # name in ownership.ARCHITECTURES; "similar architecture as f_v" (Algorithm 1, line 1)
    queries: int = 9000  # different images sent to the victim; once if victim_view is none, else once an epoch
    epochs: int = 100  # passes over the answers
    batch_size: int = 256  # images a step (the released code takes 64 for MSE)
    lr: float = 1e-3  # Adam, cosine schedule to zero
    weight_decay: float = 1e-4
    victim_view: View = "none"  # what the victim is asked: the image, its SimCLR view, or a rotation of that view
    surrogate_view: Literal["same"] | View = "same"  # what the surrogate sees: the same pixels, or a view of its own
    seed: int = 0  # which images are asked, views, initial weights, order
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        for what, value, known in (
            ("loss", self.loss, LOSSES),
            ("architecture", self.arch, ARCHITECTURES),
            ("victim view", self.victim_view, VIEWS),
            ("surrogate view", self.surrogate_view, ("same", *VIEWS)),
        ):
            if value not in known:
                raise TrainingError(f"unknown {what} {value!r}", f"one of: {', '.join(known)}")
        for name, low in (("queries", 8), ("epochs", 1), ("batch_size", 8)):
            if getattr(self, name) < low:
                raise TrainingError(f"{name} is {getattr(self, name)}", f"at least {low}")
        if not self.lr > 0:
            raise TrainingError(f"lr is {self.lr}", "must be above 0")

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as JSON-ready values."""
        return asdict(self)


def _rotation(images: Tensor, generator: torch.Generator) -> Tensor:
    """A SimCLR view, turned by any angle: the "+Rotation" of the paper's Table 17."""
    angles = torch.rand(len(images), generator=generator) * TURN
    return rotate(simclr_view(images, generator), angles.to(images.device))


VIEWS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda images, _: images,
    "standard": simclr_view,
    "rotation": _rotation,
}
"""Name -> view of float images `(n, c, h, w)`; Table 17 of the paper: NoAug, Standard, +Rotation."""


def extract(
    victim: BlackBox,
    images: Tensor,
    config: ExtractionConfig,
    *,
    labels: Tensor | None = None,
    head: nn.Module | None = None,
    store: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Encoder:
    """Trains a surrogate of `victim` by direct extraction.

    Queries that are not augmented (t'(x) = x, the paper's default) are asked once and the answers kept; augmented ones
    are new pixels each epoch, and each is paid for.

    Args:
        victim: the encoder behind its counter.
        images: `(n, c, h, w)` uint8 to choose the queries from.
        config: what to train and how.
        labels: `(n,)` integers, for the losses in `LABELLED`.
        head: frozen projection head that both sides go through before the loss (`attacks_for_eval.heads`).
        store: file that keeps bought answers, so that an interrupted theft does not pay twice.
        device: where the surrogate is trained.
        progress: called after every step.

    Returns:
        The surrogate, on the CPU, in eval mode.

    Raises:
        TrainingError: if there are fewer images than queries, labels are missing, or the dimensions do not fit.
        BudgetError: if the victim's budget runs out.
    """
    check_images(images, TrainingError)
    if len(images) < config.queries:
        raise TrainingError(f"{config.queries} queries from {len(images)} images", "lower --queries, or give more data")
    if config.loss in LABELLED and labels is None:
        raise TrainingError(f"the loss {config.loss} needs labels", "use data with labels, or another --loss")
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(len(images), generator=generator)[: config.queries]
    surrogate = seeded_architecture(config.arch, generator)
    batches = max(1, config.queries // config.batch_size)
    step = _Step(surrogate, config, batches, generator, torch.device(device), head)
    asked = images[chosen]
    known = None if labels is None else labels[chosen]
    paid_once = config.victim_view == "none"
    answers = buy(victim, asked, store=store, progress=progress) if paid_once else None
    loss = torch.zeros(())
    for epoch in range(config.epochs):
        order = torch.randperm(len(asked), generator=generator)[: batches * min(config.batch_size, len(asked))]
        for i, rows in enumerate(torch.split(order, config.batch_size)):
            shown = as_input(asked[rows])
            if answers is None:
                shown = VIEWS[config.victim_view](shown, generator)
                bought = victim(as_uint8(shown))
            else:
                bought = answers[rows]
            if config.surrogate_view != "same":
                shown = VIEWS[config.surrogate_view](as_input(asked[rows]), generator)
            loss = step(shown, bought, None if known is None else known[rows])
            progress("extracting", epoch * batches + i + 1, config.epochs * batches)
        if not bool(torch.isfinite(loss)):
            raise TrainingError(f"the loss is no longer finite in epoch {epoch + 1}", "lower the learning rate")
    return surrogate.to("cpu").to(memory_format=torch.contiguous_format).eval()


class _Step:
    """One update of the surrogate (Algorithm 1, lines 6-8), with the head of the losses that have one."""

    def __init__(
        self,
        surrogate: Encoder,
        config: ExtractionConfig,
        steps: int,
        generator: torch.Generator,
        device: torch.device,
        through: nn.Module | None,
    ) -> None:
        self.surrogate = surrogate.to(device).to(memory_format=torch.channels_last)
        self.config, self.device = config, device
        self.through = nn.Identity() if through is None else through.to(device)
        self.head: nn.Module | None = None
        if config.loss in HEADED:
            with seeded(generator):
                d = self.through(torch.zeros(1, surrogate.dim, device=device)).shape[1]
                self.head = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d)).to(device)
        parameters = [*surrogate.parameters(), *(self.head.parameters() if self.head is not None else ())]
        self.optimizer = torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=config.epochs * steps)

    def __call__(self, shown: Tensor, answers: Tensor, labels: Tensor | None) -> Tensor:
        """Returns the loss of images `(b, c, h, w)` in [0, 1] whose victim answers are `(b, d)`."""
        if answers.shape[1] != self.surrogate.dim:
            raise TrainingError(
                f"{self.config.arch} gives {self.surrogate.dim} numbers an image, the victim {answers.shape[1]}",
                "choose an --arch of the victim's dimension",
            )
        self.surrogate.train()
        x = three_channels(shown.to(self.device)).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.config.precision):
            own = self.surrogate(x)
        arguments: list[object] = [self.through(own.float()), self.through(answers.to(self.device))]
        if self.config.loss in LABELLED and labels is not None:
            arguments.append(labels.to(self.device))
        if self.head is not None:
            arguments.append(self.head)
        loss = LOSSES[self.config.loss](*arguments)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        return loss.detach()
