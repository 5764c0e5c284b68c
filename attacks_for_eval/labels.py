"""Label stealing: extraction of a classifier from its labels, posteriors or logits (paper, section 4.4, Table 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks_for_eval.black_box import BlackBox, buy
from attacks_for_eval.extraction import ExtractionConfig
from ownership.architectures import Encoder
from ownership.errors import TrainingError
from ownership.files import Progress, silent
from ownership.images import EncoderLike, as_input, check_images, represent, three_channels
from watermark_training.train import autocast, seeded, seeded_architecture

Answer = Literal["labels", "posteriors", "logits"]


class Classifier(nn.Module):
    """An encoder with a linear layer on top: what a provider of labels serves.

    Args:
        encoder: frozen or not.
        layer: `Linear(d, classes)`.
        answer: what it gives out: one-hot labels, posteriors, or logits.
    """

    def __init__(self, encoder: nn.Module, layer: nn.Linear, answer: Answer = "logits") -> None:
        super().__init__()
        self.encoder, self.layer, self.answer = encoder, layer, answer

    def forward(self, images: Tensor) -> Tensor:
        """Returns answers `(n, classes)` to images `(n, 3, h, w)` in [0, 1]."""
        logits: Tensor = self.layer(self.encoder(images))
        if self.answer == "labels":
            return F.one_hot(logits.argmax(1), logits.shape[1]).float()
        return logits.softmax(1) if self.answer == "posteriors" else logits


def _against_posteriors(own: Tensor, answers: Tensor) -> Tensor:
    return F.kl_div(own.log_softmax(1), answers, reduction="batchmean")


ANSWERS: dict[Answer, Callable[[Tensor, Tensor], Tensor]] = {
    "labels": lambda own, answers: F.cross_entropy(own, answers.argmax(1)),
    "posteriors": _against_posteriors,
    "logits": F.mse_loss,
}
"""What the victim gives out -> loss of the thief's logits against it: cross entropy, KL divergence, squared error."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class StolenClassifier:
    """What label stealing yields: "no fine-tune" is the classifier, "fine-tune" a linear evaluation of its encoder."""

    encoder: Encoder
    layer: nn.Linear

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Returns the top-1 accuracy of the classifier as stolen ("SL no fine-tune", Table 4)."""
        logits = represent(Classifier(self.encoder, self.layer), images)
        return float((logits.argmax(1) == labels).float().mean())


def fit_layer(
    encoder: EncoderLike, images: Tensor, labels: Tensor, *, epochs: int = 200, lr: float = 1e-2
) -> nn.Linear:
    """Returns a linear layer fitted to an encoder's frozen representations (how the paper makes its label victim)."""
    x, classes = represent(encoder, images), int(labels.max()) + 1
    layer = nn.Linear(x.shape[1], classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(layer.parameters(), lr=lr)
    for _ in range(epochs):
        loss = F.cross_entropy(layer(x), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return layer.requires_grad_(False)


def steal_labels(
    victim: BlackBox,
    answer: Answer,
    images: Tensor,
    config: ExtractionConfig,
    *,
    progress: Progress = silent,
) -> StolenClassifier:
    """Trains an encoder and a linear layer on a classifier's answers.

    Args:
        victim: a `Classifier` behind its counter.
        answer: what it gives out.
        images: `(n, c, h, w)` uint8 to choose the queries from; each is asked once, unaugmented.
        config: its `loss` and views do not matter here.
        progress: called after every step.

    Raises:
        TrainingError: if there are fewer images than queries, or the loss is no longer finite.
        BudgetError: if the victim's budget runs out.
    """
    check_images(images, TrainingError)
    if len(images) < config.queries:
        raise TrainingError(f"{config.queries} queries from {len(images)} images", "ask for fewer, or give more data")
    config = replace(config, batch_size=min(config.batch_size, config.queries))
    generator = torch.Generator().manual_seed(config.seed)
    asked = images[torch.randperm(len(images), generator=generator)[: config.queries]]
    answers = buy(victim, asked, progress=progress)
    encoder = seeded_architecture(config.arch, generator).to(memory_format=torch.channels_last)
    with seeded(generator):
        layer = nn.Linear(encoder.dim, answers.shape[1])
    parameters = [*encoder.parameters(), *layer.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay)
    batches = len(asked) // config.batch_size
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs * batches)
    encoder.train()
    for epoch in range(config.epochs):
        order = torch.randperm(len(asked), generator=generator)[: batches * config.batch_size]
        for i, rows in enumerate(torch.split(order, config.batch_size)):
            x = three_channels(as_input(asked[rows])).contiguous(memory_format=torch.channels_last)
            with autocast(torch.device("cpu"), config.precision):
                representations = encoder(x)
            loss = ANSWERS[answer](layer(representations.float()), answers[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress("stealing labels", epoch * batches + i + 1, config.epochs * batches)
        if not bool(torch.isfinite(loss.detach())):
            raise TrainingError(f"the loss is no longer finite in epoch {epoch + 1}", "lower the learning rate")
    return StolenClassifier(encoder=encoder.to(memory_format=torch.contiguous_format).eval(), layer=layer.eval())
