"""Extraction: train a surrogate on a victim's responses (paper, Algorithm 1), and its variants.

One loop, `fit`, trains every surrogate. What it minimizes is an objective: `RepresentationObjective` here, and
`LabelObjective` in `attacks_for_eval.extraction.labels`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from attacks_for_eval.extraction.black_box import BlackBox, query, query_all
from attacks_for_eval.extraction.config import RELEASED, VIEWS, ExtractionConfig
from attacks_for_eval.extraction.losses import HEADED, LABELED, LOSSES
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import as_input, as_uint8, check_images, three_channels
from ownership.errors import TrainingError
from ownership.io.progress import Progress, silent
from watermark_training.augment import color_view
from watermark_training.device import autocast, seeded, seeded_architecture


def _optimizer(parameters: list[nn.Parameter], config: ExtractionConfig) -> torch.optim.Optimizer:
    name, lr, _ = RELEASED[config.loss]
    if config.lr is None and name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=config.weight_decay)
    return torch.optim.Adam(parameters, lr=config.lr or lr, weight_decay=config.weight_decay)


class RepresentationObjective(nn.Module):
    """A loss between the surrogate's and the victim's representations, optionally behind a projection head.

    Args:
        config: names the loss.
        dim: length of the surrogate's representations.
        generator: draws the initial weights of the prediction head, for the losses in `HEADED`.
        projection: frozen projection head that both sides pass first (`attacks_for_eval.extraction.heads`).
    """

    def __init__(
        self, config: ExtractionConfig, dim: int, generator: torch.Generator, *, projection: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.arch, self.dim, self.labeled = config.arch, dim, config.loss in LABELED
        self.projection = nn.Identity() if projection is None else copy.deepcopy(projection).requires_grad_(False)
        self.head: nn.Module | None = None
        if config.loss in HEADED:
            d = self.projection(torch.zeros(1, dim)).shape[1]
            with seeded(generator):
                self.head = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))
        tempered = {} if config.temperature is None else {"temperature": config.temperature}
        self.loss = partial(LOSSES[config.loss], **tempered)

    def forward(self, own: Tensor, responses: Tensor, labels: Tensor | None) -> Tensor:
        """Return the loss of representations `(n, d)` against responses `(n, d)`."""
        if responses.shape[1] != self.dim:
            raise TrainingError(
                f"representations of {self.arch} have {self.dim} dimensions, the victim's {responses.shape[1]}",
                "choose an architecture of the victim's dimension",
            )
        extra = [labels] if self.labeled else [] if self.head is None else [self.head]
        return self.loss(self.projection(own), self.projection(responses), *extra)


def choose_queries(images: Tensor, config: ExtractionConfig, generator: torch.Generator) -> Tensor:
    """Return the indices of the images to query.

    Raises:
        TrainingError: if there are fewer images than queries.
    """
    check_images(images, TrainingError)
    if len(images) < config.queries:
        raise TrainingError(
            f"{config.queries} queries from {len(images)} images", "use fewer queries, or give more images"
        )
    return torch.randperm(len(images), generator=generator)[: config.queries]


def extract(
    victim: BlackBox,
    images: Tensor,
    config: ExtractionConfig,
    *,
    labels: Tensor | None = None,
    head: nn.Module | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> Encoder:
    """Train a surrogate of `victim`.

    Without augmentation (t'(x) = x, the paper's default) each image is queried once and the responses are kept.
    Augmented queries are new images in every epoch, and each is counted.

    Args:
        victim: the encoder behind its query counter.
        images: `(n, c, h, w)` uint8 to choose the queries from.
        config: what to train and how.
        labels: `(n,)` integers, for the losses in `LABELED`.
        head: frozen projection head that both sides pass before the loss (`attacks_for_eval.extraction.heads`).
        device: where the surrogate is trained.
        progress: called after every step.

    Returns:
        The surrogate, on the CPU, in eval mode.

    Raises:
        TrainingError: if there are fewer images than queries, labels are missing, or the dimensions differ.
        BudgetError: if the query budget is used up.
    """
    if config.loss in LABELED and labels is None:
        raise TrainingError(f"the loss {config.loss} needs labels", "use labeled images, or another --loss")
    generator = torch.Generator().manual_seed(config.seed)
    chosen = choose_queries(images, config, generator)
    surrogate = seeded_architecture(config.arch, generator)
    objective = RepresentationObjective(config, surrogate.dim, generator, projection=head)
    queried = images[chosen]
    known = None if labels is None else labels[chosen]
    responses: Tensor | BlackBox = victim
    if config.victim_view == "none":
        responses = query_all(victim, queried, repeats=config.repeats, progress=progress)
    examples = Examples(images=queried, responses=responses, labels=known)
    fit(surrogate, objective, config, examples, generator, device=device, progress=progress)
    return surrogate


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Examples:
    """What a surrogate is trained on.

    Attributes:
        images: `(n, c, h, w)` uint8, the queries.
        responses: `(n, d)`; or the victim, which is queried with a new view of each image in every epoch.
        labels: `(n,)` of the images, for objectives that use them.
    """

    images: Tensor
    responses: Tensor | BlackBox
    labels: Tensor | None = None


def fit(
    surrogate: Encoder,
    objective: nn.Module,
    config: ExtractionConfig,
    examples: Examples,
    generator: torch.Generator,
    *,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> None:
    """Train a surrogate and the objective's own parameters; leave both on the CPU, in eval mode.

    Args:
        surrogate: changed in place.
        objective: `(representations, responses, labels)` -> loss.
        config: epochs, batch size, optimizer and views.
        examples: images and the victim's responses to them.
        generator: order and views.
        device: where to compute.
        progress: called after every step.

    Raises:
        TrainingError: if the loss is no longer finite.
        BudgetError: if the query budget is used up.
    """
    device = torch.device(device)
    queried, responses, labels = examples.images, examples.responses, examples.labels
    surrogate.to(device).to(memory_format=torch.channels_last).train()
    objective.to(device)
    parameters = [p for m in (surrogate, objective) for p in m.parameters() if p.requires_grad]
    optimizer = _optimizer(parameters, config)
    size = min(config.batch_size or RELEASED[config.loss][2], len(queried))
    batches = len(queried) // size
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs * batches)
    for epoch in range(config.epochs):
        order = torch.randperm(len(queried), generator=generator)[: batches * size]
        for i, rows in enumerate(torch.split(order, size)):
            shown = as_input(queried[rows])
            if isinstance(responses, Tensor):
                responded = responses[rows]
            else:
                shown = VIEWS[config.victim_view](shown, generator)
                responded = query(responses, as_uint8(shown), config.repeats)
            if config.surrogate_view != "same":
                shown = VIEWS[config.surrogate_view](as_input(queried[rows]), generator)
            seen = [shown, color_view(shown, generator)] if config.view_weight else [shown]
            x = three_channels(torch.cat(seen).to(device)).contiguous(memory_format=torch.channels_last)
            with autocast(device, config.precision):
                own = surrogate(x)
            known = None if labels is None else labels[rows].to(device)
            target = responded.to(device)
            loss = objective(own[:size].float(), target, known)
            if config.view_weight:
                loss = loss + config.view_weight * objective(own[size:].float(), target, known)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            progress("extracting", epoch * batches + i + 1, config.epochs * batches)
        if not bool(torch.isfinite(loss.detach())):
            raise TrainingError(f"the loss is no longer finite in epoch {epoch + 1}", "lower the learning rate")
    surrogate.to("cpu").to(memory_format=torch.contiguous_format).eval()
    objective.to("cpu").eval()
