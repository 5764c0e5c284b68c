"""Configuration of an extraction attack: one flat record, the views it may use, and the named methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attacks_for_eval.choices import METHODS, Cleaning, SurrogateView, check_method, check_temperature
from attacks_for_eval.choices import View as View
from attacks_for_eval.extraction.losses import LOSSES
from ownership.encoders.architectures import is_architecture, known_architectures
from ownership.errors import TrainingError
from ownership.watermark import TURN, rotate
from watermark_training.augment import color_view, simclr_view
from watermark_training.choices import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionConfig:
    """Configuration of `extract`; defaults are those of the paper's released code for the loss (`RELEASED`).

    Where the released code and the paper's appendix A.1 differ (MSE: 1e-4 there), the code is followed. Its schedule is
    not: it keeps the learning rate for most of the run, while here it falls to zero along a cosine. The victim's and
    the surrogate's view are t' and t of Algorithm 1. `METHODS` names common combinations.

    Attributes:
        loss: name in `LOSSES`.
        arch: name that `make_encoder` takes; "similar architecture as f_v" (Algorithm 1, line 1).
        queries: different images to query; each once if `victim_view` is none, otherwise once an epoch.
        epochs: epochs over the responses.
        batch_size: images in one step; None takes the released code's for the loss.
        lr: Adam's learning rate; None takes the released code's optimizer and learning rate for the loss.
        weight_decay: of the optimizer.
        temperature: of the losses in `TEMPERED`; None takes each loss's default.
        victim_view: view of an image that the victim is queried with.
        surrogate_view: view that the surrogate represents; "same" are the pixels that the victim was queried with.
        view_weight: weight of a second term, by which a color view must get the same response (StolenEncoder's
            lambda).
        repeats: queries an image, which are averaged against noise.
        prototype_views: views of each image that the victim is queried with once; the mean of its responses, each of
            length 1, is the response to the image. 0: no prototypes.
        projector: whether the surrogate's side passes a trained projector, which is thrown away.
        own_share: share of the attacker's own SimCLR loss in the objective.
        cleaning: what is done to the responses first; needs an encoder of the attacker's own.
        own_teacher: whether an encoder of the attacker's own is a second teacher, each behind a head.
        seed: of the choice of images, views, initial weights and order.
        precision: auto uses bfloat16 autocast where the hardware supports it.

    Raises:
        TrainingError: if a value is unknown, out of range, or contradicts another one.
    """

    loss: str = "mse"
    arch: str = "resnet18"
    queries: int = 9000
    epochs: int = 100
    batch_size: int | None = None
    lr: float | None = None
    weight_decay: float = 1e-4
    temperature: float | None = None
    victim_view: View = "none"
    surrogate_view: SurrogateView = "same"
    view_weight: float = 0.0
    repeats: int = 1
    prototype_views: int = 0
    projector: bool = False
    own_share: float = 0.0
    cleaning: Cleaning = "none"
    own_teacher: bool = False
    seed: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for what, value, known in (
            ("loss", self.loss, LOSSES),
            ("victim view", self.victim_view, VIEWS),
            ("surrogate view", self.surrogate_view, ("same", *VIEWS)),
        ):
            if value not in known:
                raise TrainingError(f"unknown {what} {value!r}", f"one of: {', '.join(known)}")
        if not is_architecture(self.arch):
            raise TrainingError(f"unknown architecture {self.arch!r}", known_architectures(self.arch))
        for name, low in (
            ("queries", 8),
            ("epochs", 1),
            ("batch_size", 8),
            ("repeats", 1),
            ("view_weight", 0),
            ("prototype_views", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < low:
                raise TrainingError(f"{name} is {value}", f"at least {low}")
        for name in ("lr", "temperature"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"{name} is {value}", "must be above 0")
        if not 0 <= self.own_share < 1:
            raise TrainingError(f"own_share is {self.own_share}", "from 0 to below 1")
        if self.needs_own_encoder and self.victim_view != "none":
            raise TrainingError("cleaning and a second teacher need responses to the images themselves")
        if self.own_teacher and (self.projector or self.own_share):
            raise TrainingError("a second teacher goes with no projector and no objective of the attacker's own")
        check_temperature(self.loss, self.temperature)

    @property
    def needs_own_encoder(self) -> bool:
        """Whether the attacker needs an encoder of its own."""
        return self.own_teacher or self.cleaning != "none"

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON-ready values."""
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
    "rda": ("adam", 1e-3, 100),
}
"""Loss -> optimizer, learning rate and batch size of the released code (unit_l2: of StolenEncoder's); SGD has momentum
0.9."""


def _rotation(images: Tensor, generator: torch.Generator) -> Tensor:
    """A SimCLR view rotated by any angle: the "+Rotation" of the paper's Table 17."""
    angles = torch.rand(len(images), generator=generator) * TURN
    return rotate(simclr_view(images, generator), angles.to(images.device))


def _rotated(images: Tensor, generator: torch.Generator) -> Tensor:
    """The image itself rotated by any angle."""
    return rotate(images, (torch.rand(len(images), generator=generator) * TURN).to(images.device))


VIEWS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda images, _: images,
    "standard": simclr_view,
    "rotation": _rotation,
    "rotated": _rotated,
    "color": color_view,
}
"""Name -> view of float images `(n, c, h, w)`.

none, standard and rotation are NoAug, Standard and +Rotation of the paper's Table 17; rotated is the image itself
rotated by any angle; color is StolenEncoder's view.
"""


def with_method(config: ExtractionConfig, method: str) -> ExtractionConfig:
    """Return the configuration with a method's fields set.

    Raises:
        TrainingError: if the method is unknown.
    """
    check_method(method, {})
    return replace(config, **METHODS[method])
