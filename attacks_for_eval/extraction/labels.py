"""Extraction of a classifier from its labels, posteriors or logits (paper, section 4.4, Table 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks_for_eval.extraction.black_box import BlackBox, query_all
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import Examples, choose_queries, fit
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike, represent
from ownership.errors import TrainingError
from ownership.io.progress import Progress, silent
from watermark_training.device import seeded, seeded_architecture

ClassifierOutput = Literal["labels", "posteriors", "logits"]
"""What a classifier returns: one-hot labels, posteriors, or logits."""


class Classifier(nn.Module):
    """An encoder with a linear layer: what a provider of a classifier serves.

    Args:
        encoder: frozen or not.
        layer: `Linear(d, classes)`.
        output: what it returns.
    """

    def __init__(self, encoder: nn.Module, layer: nn.Linear, output: ClassifierOutput = "logits") -> None:
        super().__init__()
        self.encoder, self.layer, self.output = encoder, layer, output

    def forward(self, images: Tensor) -> Tensor:
        """Return outputs `(n, classes)` for images `(n, 3, h, w)` in [0, 1]."""
        logits: Tensor = self.layer(self.encoder(images))
        if self.output == "labels":
            return F.one_hot(logits.argmax(1), logits.shape[1]).float()
        return logits.softmax(1) if self.output == "posteriors" else logits


def _against_posteriors(own: Tensor, responses: Tensor) -> Tensor:
    return F.kl_div(own.log_softmax(1), responses, reduction="batchmean")


CLASSIFIER_OUTPUTS: dict[ClassifierOutput, Callable[[Tensor, Tensor], Tensor]] = {
    "labels": lambda own, responses: F.cross_entropy(own, responses.argmax(1)),
    "posteriors": _against_posteriors,
    "logits": F.mse_loss,
}
"""What the victim returns -> loss of the surrogate's logits against it: cross-entropy, KL divergence, squared error."""


class LabelObjective(nn.Module):
    """Objective of classifier extraction: the surrogate classifier's logits against the victim's outputs."""

    def __init__(self, output: ClassifierOutput, layer: nn.Linear) -> None:
        super().__init__()
        self.output, self.layer = output, layer

    def forward(self, own: Tensor, responses: Tensor, labels: Tensor | None) -> Tensor:
        """Return the loss of representations `(n, d)` against outputs `(n, classes)`."""
        return CLASSIFIER_OUTPUTS[self.output](self.layer(own), responses)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ExtractedClassifier:
    """Result of classifier extraction.

    The paper's "no fine-tune" is this classifier, its "fine-tune" a linear evaluation of the encoder (Table 4).
    """

    encoder: Encoder
    layer: nn.Linear

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Return the top-1 accuracy of the extracted classifier ("SL no fine-tune", Table 4)."""
        logits = represent(Classifier(self.encoder, self.layer), images)
        return float((logits.argmax(1) == labels).float().mean())


def fit_layer(
    encoder: EncoderLike, images: Tensor, labels: Tensor, *, epochs: int = 200, lr: float = 1e-2
) -> nn.Linear:
    """Return a linear layer fitted to frozen representations, as the paper makes its victim classifier."""
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


def extract_classifier(
    victim: BlackBox,
    output: ClassifierOutput,
    images: Tensor,
    config: ExtractionConfig,
    *,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> ExtractedClassifier:
    """Train an encoder and a linear layer on a classifier's outputs.

    Args:
        victim: a classifier behind its query counter, such as `Classifier`.
        output: what it returns, one vector `(classes,)` an image.
        images: `(n, c, h, w)` uint8 to choose the queries from; each is queried without augmentation.
        config: its `loss` gives only the default optimizer and batch size (`RELEASED`); its `victim_view` is ignored.
        device: where to compute.
        progress: called after every step.

    Raises:
        TrainingError: if there are fewer images than queries, the outputs are not of the declared kind, or the
            configuration needs representations.
        BudgetError: if the query budget is used up.
    """
    if config.projector or config.own_share or config.prototype_views or config.needs_own_encoder:
        raise TrainingError("this method needs representations, not a classifier's outputs", "use the method direct")
    generator = torch.Generator().manual_seed(config.seed)
    queried = images[choose_queries(images, config, generator)]
    responses = query_all(victim, queried, repeats=config.repeats, progress=progress)
    if output != "logits" and not bool(((responses.sum(1) - 1).abs() < 1e-2).all() and (responses >= 0).all()):
        raise TrainingError(
            f"the victim's outputs are not {output}: they are not probabilities that sum to 1",
            "declare --output-kind logits, or representations",
        )
    encoder = seeded_architecture(config.arch, generator)
    with seeded(generator):
        objective = LabelObjective(output, nn.Linear(encoder.dim, responses.shape[1]))
    examples = Examples(images=queried, responses=responses)
    fit(encoder, objective, config, examples, generator, device=device, progress=progress)
    return ExtractedClassifier(encoder=encoder, layer=objective.layer)
