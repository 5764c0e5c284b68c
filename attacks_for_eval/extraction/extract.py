"""Extraction: train a surrogate on a victim's responses (paper, Algorithm 1), and its variants.

One loop, `fit`, trains every surrogate. What it minimizes is an objective (`attacks_for_eval.extraction.objectives`,
and `LabelObjective` in `attacks_for_eval.extraction.labels`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks_for_eval.extraction.black_box import BlackBox, query, query_all
from attacks_for_eval.extraction.config import RELEASED, VIEWS, ExtractionConfig
from attacks_for_eval.extraction.losses import LABELED
from attacks_for_eval.extraction.objectives import RepresentationObjective, TeachersObjective
from attacks_for_eval.extraction.responses import cleaned
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike, as_input, as_uint8, check_images, represent, three_channels
from ownership.errors import TrainingError
from ownership.io.progress import Progress, silent
from watermark_training.augment import color_view, simclr_view
from watermark_training.device import autocast, seeded_architecture


def _optimizer(parameters: list[nn.Parameter], config: ExtractionConfig) -> torch.optim.Optimizer:
    name, lr, _ = RELEASED[config.loss]
    if config.lr is None and name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=config.weight_decay)
    return torch.optim.Adam(parameters, lr=config.lr or lr, weight_decay=config.weight_decay)


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
    start: Encoder | None = None,
    own: EncoderLike | None = None,
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
        start: encoder whose weights the surrogate starts from, of the architecture of `config`; None draws them.
        own: encoder that the attacker trained without the victim, where `config.needs_own_encoder`.
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
    if config.needs_own_encoder and own is None:
        raise TrainingError("this method needs an encoder of the attacker's own", "give one, --own-encoder")
    generator = torch.Generator().manual_seed(config.seed)
    chosen = choose_queries(images, config, generator)
    surrogate = seeded_architecture(config.arch, generator)
    if start is not None:
        surrogate.load_state_dict(start.state_dict())
    objective: nn.Module = RepresentationObjective(config, surrogate.dim, generator, projection=head)
    responses: Tensor | BlackBox = victim
    if config.prototype_views:
        responses = prototypes(victim, images[chosen], config, generator, progress=progress)
    elif config.victim_view == "none":
        responses = query_all(victim, images[chosen], repeats=config.repeats, progress=progress)
    if own is not None and isinstance(responses, Tensor):
        theirs = represent(own, images[chosen]).float()
        if config.cleaning != "none":
            kept, responses = cleaned(config.cleaning, responses, theirs, config.seed)
            chosen, theirs = chosen[kept], theirs[kept]
        if config.own_teacher:
            teachers = [(t - t.mean(0)) / t.std() for t in (responses, theirs)]
            objective = TeachersObjective(surrogate.dim, [t.shape[1] for t in teachers], generator)
            responses = torch.cat(teachers, 1)
    known = None if labels is None else labels[chosen]
    examples = Examples(images=images[chosen], responses=responses, labels=known)
    fit(surrogate, objective, config, examples, generator, device=device, progress=progress)
    return surrogate


def prototypes(
    victim: BlackBox,
    images: Tensor,
    config: ExtractionConfig,
    generator: torch.Generator,
    *,
    progress: Progress = silent,
) -> Tensor:
    """Return the mean of the victim's responses, each of length 1, to `config.prototype_views` views of each image."""
    found = []
    for i in range(config.prototype_views):
        views = [as_uint8(VIEWS[config.victim_view](as_input(x), generator)) for x in torch.split(images, 256)]
        found.append(F.normalize(query_all(victim, torch.cat(views), repeats=config.repeats), dim=1))
        progress("querying views", i + 1, config.prototype_views)
    return torch.stack(found).mean(0)


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
            seen = [shown]
            if config.view_weight:
                seen.append(color_view(shown, generator))
            if config.own_share:
                seen += [simclr_view(as_input(queried[rows]), generator) for _ in range(2)]
            x = three_channels(torch.cat(seen).to(device)).contiguous(memory_format=torch.channels_last)
            with autocast(device, config.precision):
                own = torch.split(surrogate(x).float(), size)
            known = None if labels is None else labels[rows].to(device)
            target = responded.to(device)
            loss = objective(own[0], target, known)
            if config.view_weight:
                loss = loss + config.view_weight * objective(own[1], target, known)
            if config.own_share and isinstance(objective, RepresentationObjective):
                loss = (1 - config.own_share) * loss + config.own_share * objective.own_loss(own[-2], own[-1])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            progress("extracting", epoch * batches + i + 1, config.epochs * batches)
        if not bool(torch.isfinite(loss.detach())):
            raise TrainingError(f"the loss is no longer finite in epoch {epoch + 1}", "lower the learning rate")
    surrogate.to("cpu").to(memory_format=torch.contiguous_format).eval()
    objective.to("cpu").eval()
