"""Label stealing: extraction of a classifier from its labels, posteriors or logits (paper, section 4.4, Table 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks_for_eval.extraction.black_box import BlackBox, buy
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import choose, fit
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike, represent
from ownership.errors import TrainingError
from ownership.io.progress import Progress, silent
from watermark_training.device import seeded, seeded_architecture

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


def _against_posteriors(own: Tensor, responses: Tensor) -> Tensor:
    return F.kl_div(own.log_softmax(1), responses, reduction="batchmean")


RESPONSE_KINDS: dict[Answer, Callable[[Tensor, Tensor], Tensor]] = {
    "labels": lambda own, responses: F.cross_entropy(own, responses.argmax(1)),
    "posteriors": _against_posteriors,
    "logits": F.mse_loss,
}
"""What the victim gives out -> loss of the thief's logits against it: cross entropy, KL divergence, squared error."""


class LabelObjective(nn.Module):
    """The objective of label stealing: what the thief's own layer reads, against what the victim gave out."""

    def __init__(self, answer: Answer, layer: nn.Linear) -> None:
        super().__init__()
        self.answer, self.layer = answer, layer

    def forward(self, own: Tensor, responses: Tensor, labels: Tensor | None) -> Tensor:
        """Returns the loss of representations `(n, d)` against answers `(n, classes)`."""
        return RESPONSE_KINDS[self.answer](self.layer(own), responses)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ExtractedClassifier:
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
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> ExtractedClassifier:
    """Trains an encoder and a linear layer on a classifier's answers.

    Args:
        victim: a classifier behind its counter, such as `Classifier`.
        answer: what it gives out, one vector `(classes,)` an image: one-hot labels, posteriors or logits.
        images: `(n, c, h, w)` uint8 to choose the queries from; each is asked about unaugmented.
        config: its `loss` says the default optimiser and batch only (`RELEASED`); its `victim_view` does not matter.
        device: where to compute.
        progress: called after every step.

    Raises:
        TrainingError: if there are fewer images than queries, or the answers are not of the declared kind.
        BudgetError: if the victim's budget runs out.
    """
    generator = torch.Generator().manual_seed(config.seed)
    session = images[choose(images, config, generator)]
    responses = buy(victim, session, repeats=config.repeats, progress=progress)
    if answer != "logits" and not bool(((responses.sum(1) - 1).abs() < 1e-2).all() and (responses >= 0).all()):
        raise TrainingError(
            f"the victim's answers are no {answer}: they are not shares that sum to 1",
            "declare --output-kind logits, or representations",
        )
    encoder = seeded_architecture(config.arch, generator)
    with seeded(generator):
        reading = LabelObjective(answer, nn.Linear(encoder.dim, responses.shape[1]))
    fit(encoder, reading, config, session, responses, generator, device=device, progress=progress)
    return ExtractedClassifier(encoder=encoder, layer=reading.layer)
