"""What a theft is: one flat configuration, the views it may use, and the combinations that have a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from attacks_for_eval.extraction.losses import LOSSES, TEMPERED
from ownership.encoders.architectures import is_architecture, known_architectures
from ownership.errors import TrainingError
from ownership.watermark import TURN, rotate
from watermark_training.augment import colour_view, simclr_view

View = Literal["none", "standard", "rotation", "turn", "colour"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionConfig:
    """What `extract` needs to know; defaults are those of the paper's released code, by loss (`RELEASED`).

    Where it and the paper's appendix A.1 differ (MSE: 1e-4 there), the code is followed, but for its schedule, which
    leaves the learning rate as it is for most of the run: here it falls to zero along a cosine, a step at a time.
    The two views are t' and t of Algorithm 1. `METHODS` names the combinations that have a name.
    """

    loss: str = "mse"  # name in LOSSES
    arch: str = "resnet18"  # name that make_encoder takes; "similar architecture as f_v" (Algorithm 1, line 1)
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
            ("victim view", self.victim_view, VIEWS),
            ("surrogate view", self.surrogate_view, ("same", *VIEWS)),
        ):
            if value not in known:
                raise TrainingError(f"unknown {what} {value!r}", f"one of: {', '.join(known)}")
        if not is_architecture(self.arch):
            raise TrainingError(f"unknown architecture {self.arch!r}", f"one of: {known_architectures()}")
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


def _rotation(images: Tensor, generator: torch.Generator) -> Tensor:
    """A SimCLR view, turned by any angle: the "+Rotation" of the paper's Table 17."""
    angles = torch.rand(len(images), generator=generator) * TURN
    return rotate(simclr_view(images, generator), angles.to(images.device))


def _turn(images: Tensor, generator: torch.Generator) -> Tensor:
    """The image itself, turned by any angle and nothing else."""
    return rotate(images, (torch.rand(len(images), generator=generator) * TURN).to(images.device))


VIEWS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda images, _: images,
    "standard": simclr_view,
    "rotation": _rotation,
    "turn": _turn,
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
    "rotated": {"surrogate_view": "turn"},
    "averaging": {"repeats": 10},
}
"""Name of a theft -> the fields of `ExtractionConfig` that make it.

The first three are the paper's Table 1 (representations compared, or latent vectors behind a recreated or given
projection head). Then StolenEncoder (Liu et al., CCS 2022; lambda 9 as in its released code, one view a step),
Cont-Steal (Sha et al., CVPR 2023; the surrogate sees another view than the victim), and adaptive thieves: one who
rotates queries (paper, Table 17), two who want the mark gone (their surrogate sees a turned SimCLR view, or just the
image turned, and must answer as the victim does to the image upright), one who averages noise away. Two stages are two
thefts, the second from the first one's surrogate.
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
