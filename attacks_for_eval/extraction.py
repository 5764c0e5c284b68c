"""Direct extraction: training a surrogate on a victim's answers (paper, Algorithm 1), and its later variants.

One loop, `fit`, trains every surrogate; what is pulled to what is an objective: `Comparison` here, `Reading` in
`attacks_for_eval.labels`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attacks_for_eval.black_box import BlackBox, ask, buy
from attacks_for_eval.losses import HEADED, LABELLED, LOSSES, TEMPERED
from ownership.architectures import ARCHITECTURES, Encoder
from ownership.errors import TrainingError
from ownership.files import Progress, silent
from ownership.images import as_input, as_uint8, check_images, three_channels
from ownership.watermark import TURN, rotate
from watermark_training.augment import colour_view, simclr_view
from watermark_training.train import autocast, seeded, seeded_architecture

View = Literal["none", "standard", "rotation", "colour"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionConfig:
    """What `extract` needs to know; defaults are those of the paper's released code, by loss (`RELEASED`).

    Where it and the paper's appendix A.1 differ (MSE: 1e-4 there), the code is followed, but for its schedule, which
    leaves the learning rate as it is for most of the run: here it falls to zero along a cosine, a step at a time.
    The two views are t' and t of Algorithm 1. `METHODS` names the combinations that have a name.
    """

    loss: str = "mse"  # name in LOSSES
    arch: str = "resnet18"  # name in ownership.ARCHITECTURES; "similar architecture as f_v" (Algorithm 1, line 1)
    queries: int = 9000  # different images sent to the victim; once if victim_view is none, else once an epoch
    epochs: int = 100  # passes over the answers
    batch_size: int | None = None  # images a step; None: the released code's for this loss
    lr: float | None = None  # Adam's; None: the released code's optimiser and learning rate for this loss
    weight_decay: float = 1e-4
    temperature: float | None = None  # of the losses in TEMPERED; each loss's own default if None
    victim_view: View = "none"  # what the victim is asked: the image, its SimCLR view, or a rotation of that view
    surrogate_view: Literal["same"] | View = "same"  # what the surrogate sees: the same pixels, or a view of its own
    view_weight: float = 0.0  # weight of a second term: a colour view must get the same answer (StolenEncoder's lambda)
    repeats: int = 1  # times each query is asked, to average noisy answers
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
        for name, low in (("queries", 8), ("epochs", 1), ("batch_size", 8), ("repeats", 1), ("view_weight", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise TrainingError(f"{name} is {value}", f"at least {low}")
        for name in ("lr", "temperature"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"{name} is {value}", "must be above 0")
        if self.temperature is not None and self.loss not in TEMPERED:
            raise TrainingError(
                f"the loss {self.loss} has no temperature", f"one of these has: {', '.join(sorted(TEMPERED))}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as JSON-ready values."""
        return asdict(self)


RELEASED: dict[str, tuple[str, float, int]] = {
    "mse": ("adam", 1e-3, 64),
    "unit_l2": ("sgd", 1e-3, 64),
    "infonce": ("adam", 3e-4, 256),
    "softnn": ("adam", 1e-3, 256),
    "wasserstein": ("adam", 1e-3, 64),
    "supcon": ("sgd", 0.05, 256),
    "barlow": ("adam", 1e-3, 256),
    "symmetrized": ("sgd", 0.05, 256),
}
"""Loss -> optimiser, learning rate and images a step of the released code (unit_l2: of StolenEncoder's); SGD with
momentum .9."""


def _optimizer(parameters: list[nn.Parameter], config: ExtractionConfig) -> torch.optim.Optimizer:
    name, lr, _ = RELEASED[config.loss]
    if config.lr is None and name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=config.weight_decay)
    return torch.optim.Adam(parameters, lr=config.lr or lr, weight_decay=config.weight_decay)


def _rotation(images: Tensor, generator: torch.Generator) -> Tensor:
    """A SimCLR view, turned by any angle: the "+Rotation" of the paper's Table 17."""
    angles = torch.rand(len(images), generator=generator) * TURN
    return rotate(simclr_view(images, generator), angles.to(images.device))


VIEWS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda images, _: images,
    "standard": simclr_view,
    "rotation": _rotation,
    "colour": colour_view,
}
"""Name -> view of float images `(n, c, h, w)`; Table 17 of the paper: NoAug, Standard, +Rotation; StolenEncoder's."""

METHODS: dict[str, dict[str, Any]] = {
    "direct": {},
    "recreate-head": {},
    "access-head": {},
    "stolen-encoder": {"loss": "unit_l2", "view_weight": 9.0},
    "cont-steal": {
        "loss": "infonce",
        "temperature": 0.5,
        "victim_view": "standard",
        "surrogate_view": "standard",
    },
    "rotated-queries": {"victim_view": "rotation"},
    "rotation-invariant": {"surrogate_view": "rotation"},
    "averaging": {"repeats": 10},
}
"""Name of a theft -> the fields of `ExtractionConfig` that make it.

The first three are the paper's Table 1 (representations compared, or latent vectors behind a recreated or given
projection head). Then StolenEncoder (Liu et al., CCS 2022; lambda 9 as in its released code, one view a step),
Cont-Steal (Sha et al., CVPR 2023; the surrogate sees another view than the victim), and adaptive thieves: one who
rotates queries (paper, Table 17), one who wants the mark gone, one who averages noise away. Two stages are two thefts,
the second from the first one's surrogate.
"""


def with_method(config: ExtractionConfig, method: str) -> ExtractionConfig:
    """Returns the configuration with a method's fields set.

    Raises:
        TrainingError: if the method is unknown.
    """
    check_method(method, {})
    return replace(config, **METHODS[method])


def check_method(method: str, given: dict[str, Any]) -> None:
    """Refuses fields that contradict what makes the method.

    Raises:
        TrainingError: if the method is unknown, or a field is given another value than the method's.
    """
    if method not in METHODS:
        raise TrainingError(f"unknown method {method!r}", f"one of: {', '.join(METHODS)}")
    for name, value in METHODS[method].items():
        if given.get(name, value) != value:
            raise TrainingError(
                f"{method} means {name} {value}, not {given[name]}", "leave it out, or use --method direct"
            )


class Comparison(nn.Module):
    """A loss between the surrogate's representations and the victim's, behind a projection head or not.

    Args:
        config: which loss.
        dim: length of the surrogate's representations.
        generator: initial weights of the prediction head, for the losses in `HEADED`.
        through: frozen projection head that both sides go through first (`attacks_for_eval.heads`).
    """

    def __init__(
        self, config: ExtractionConfig, dim: int, generator: torch.Generator, *, through: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.arch, self.dim, self.labelled = config.arch, dim, config.loss in LABELLED
        self.through = nn.Identity() if through is None else copy.deepcopy(through).requires_grad_(False)
        self.head: nn.Module | None = None
        if config.loss in HEADED:
            d = self.through(torch.zeros(1, dim)).shape[1]
            with seeded(generator):
                self.head = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))
        tempered = {} if config.temperature is None else {"temperature": config.temperature}
        self.loss = partial(LOSSES[config.loss], **tempered)

    def forward(self, own: Tensor, answers: Tensor, labels: Tensor | None) -> Tensor:
        """Returns the loss of representations `(n, d)` against answers `(n, d)`."""
        if answers.shape[1] != self.dim:
            raise TrainingError(
                f"{self.arch} gives {self.dim} numbers an image, the victim {answers.shape[1]}",
                "choose an --arch of the victim's dimension",
            )
        extra = [labels] if self.labelled else [] if self.head is None else [self.head]
        return self.loss(self.through(own), self.through(answers), *extra)


def choose(images: Tensor, config: ExtractionConfig, generator: torch.Generator) -> Tensor:
    """Returns the rows of the images that are asked about.

    Raises:
        TrainingError: if there are fewer images than queries.
    """
    check_images(images, TrainingError)
    if len(images) < config.queries:
        raise TrainingError(f"{config.queries} queries from {len(images)} images", "lower --queries, or give more data")
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
    """Trains a surrogate of `victim` by direct extraction.

    Queries that are not augmented (t'(x) = x, the paper's default) are asked once and the answers kept; augmented ones
    are new pixels each epoch, and each is paid for.

    Args:
        victim: the encoder behind its counter.
        images: `(n, c, h, w)` uint8 to choose the queries from.
        config: what to train and how.
        labels: `(n,)` integers, for the losses in `LABELLED`.
        head: frozen projection head that both sides go through before the loss (`attacks_for_eval.heads`).
        device: where the surrogate is trained.
        progress: called after every step.

    Returns:
        The surrogate, on the CPU, in eval mode.

    Raises:
        TrainingError: if there are fewer images than queries, labels are missing, or the dimensions do not fit.
        BudgetError: if the victim's budget runs out.
    """
    if config.loss in LABELLED and labels is None:
        raise TrainingError(f"the loss {config.loss} needs labels", "use data with labels, or another --loss")
    generator = torch.Generator().manual_seed(config.seed)
    chosen = choose(images, config, generator)
    surrogate = seeded_architecture(config.arch, generator)
    objective = Comparison(config, surrogate.dim, generator, through=head)
    asked = images[chosen]
    known = None if labels is None else labels[chosen]
    paid_once = config.victim_view == "none"
    answers: Tensor | BlackBox = victim
    if paid_once:
        answers = buy(victim, asked, repeats=config.repeats, progress=progress)
    fit(surrogate, objective, config, asked, answers, generator, labels=known, device=device, progress=progress)
    return surrogate


def fit(
    surrogate: Encoder,
    objective: nn.Module,
    config: ExtractionConfig,
    asked: Tensor,
    answers: Tensor | BlackBox,
    generator: torch.Generator,
    *,
    labels: Tensor | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> None:
    """Trains a surrogate, and what the objective has to train; leaves both on the CPU, in eval mode.

    Args:
        surrogate: changed in place.
        objective: `(own, answers, labels)` -> loss.
        config: passes, steps and views.
        asked: `(n, c, h, w)` uint8.
        answers: `(n, d)`, bought before; or the victim, asked about a new view of each image in every epoch.
        generator: order and views.
        labels: `(n,)` of the images, for objectives that want them.
        device: where to compute.
        progress: called after every step.

    Raises:
        TrainingError: if the loss is no longer finite.
        BudgetError: if the victim's budget runs out.
    """
    device = torch.device(device)
    surrogate.to(device).to(memory_format=torch.channels_last).train()
    objective.to(device)
    parameters = [p for m in (surrogate, objective) for p in m.parameters() if p.requires_grad]
    optimizer = _optimizer(parameters, config)
    size = min(config.batch_size or RELEASED[config.loss][2], len(asked))
    batches = len(asked) // size
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs * batches)
    for epoch in range(config.epochs):
        order = torch.randperm(len(asked), generator=generator)[: batches * size]
        for i, rows in enumerate(torch.split(order, size)):
            shown = as_input(asked[rows])
            if isinstance(answers, Tensor):
                bought = answers[rows]
            else:
                shown = VIEWS[config.victim_view](shown, generator)
                bought = ask(answers, as_uint8(shown), config.repeats)
            if config.surrogate_view != "same":
                shown = VIEWS[config.surrogate_view](as_input(asked[rows]), generator)
            seen = [shown, colour_view(shown, generator)] if config.view_weight else [shown]
            x = three_channels(torch.cat(seen).to(device)).contiguous(memory_format=torch.channels_last)
            with autocast(device, config.precision):
                own = surrogate(x)
            known = None if labels is None else labels[rows].to(device)
            target = bought.to(device)
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
