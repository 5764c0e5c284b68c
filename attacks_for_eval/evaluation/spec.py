"""Specifications of the models of an evaluation: surrogates, transformed or not, and independent encoders."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from attacks_for_eval.choices import METHODS, View
from attacks_for_eval.evasion.apply import EVASIONS, needs_checkpoint
from ownership.encoders.architectures import is_architecture, known_architectures
from ownership.errors import TrainingError
from watermark_training.config import METHODS as TRAINING_METHODS
from watermark_training.config import TrainConfig, WatermarkTask


class Objective(StrEnum):
    """How an independent encoder is trained."""

    SIMCLR = "simclr"
    """SimCLR, as `turnmark train` trains it."""
    SIMSIAM = "simsiam"
    """SimSiam, as `turnmark train` trains it."""
    BARLOW = "barlow"
    """Barlow Twins, as `turnmark train` trains it."""
    ROTATED = "rotated"
    """SimCLR on rotated views: a rotation-invariant encoder."""
    SUPERVISED = "supervised"
    """Classification of the images' labels."""
    ROTATION = "rotation"
    """Classification of the 90-degree rotation that an image was given (Gidaris et al. 2018)."""
    UNTRAINED = "untrained"
    """Initial weights; only the running statistics of the normalization are set."""
    DISTILLED = "distilled"
    """Extraction from an encoder independent of the victim: the file `base_checkpoint`, or else a SimCLR encoder of the
    same images. It shows what an extraction is worth without the victim."""
    FILE = "file"
    """An existing encoder: the file `base_checkpoint`."""


WEIGHT_TRANSFORMS = ("fine_tune", "distil", "embed", *(name for name, e in EVASIONS.items() if e.weights))
"""Transforms of a surrogate's weights, with an argument after a colon: evasions that change weights, and these.

| name | example | what the attacker does |
|---|---|---|
| fine_tune | fine_tune:3 | fine-tunes for 3 epochs of SimCLR on the queried images |
| distil | distil:infonce:small_vgg | extracts a second surrogate from the first one, with this loss and architecture |
| embed | embed:8 | embeds a keyed watermark of its own for 8 epochs on the queried images |
"""


def check_start(evasion: str, checkpoint: str) -> None:
    """Raise TrainingError if an evasion is malformed, or needs a checkpoint where the surrogate starts from none."""
    if needs_checkpoint(evasion) and not checkpoint:
        raise TrainingError(
            f"{evasion} needs a surrogate that starts from a checkpoint", "use evade(..., Attacker(checkpoint=...))"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Specification of one model: flat and hashable, so that files are named after it.

    Attributes:
        role: surrogate, or independent of the victim.
        kind: group that its rows are counted in.
        arch: name in `ownership.ARCHITECTURES`.
        source: name of the images it is made with.
        images: how many of them, drawn by the seed; for a surrogate its unique queries.
        epochs: epochs over them.
        seed: of images, initial weights and order.
        objective: how an independent encoder is trained, a value of `Objective`.
        watermark: watermark of an independent encoder, with its own key.
        base_checkpoint: file, relative to the models' folder, that an independent encoder starts from, is distilled
            from, or is; or that a surrogate starts from.
        method: extraction method of surrogates and of the objective "distilled"; none that needs a projection head.
        loss: extraction loss of the same.
        view: view of an image that the victim is queried with (paper, Table 17).
        weight_transforms: transforms of a surrogate's weights, in order (`WEIGHT_TRANSFORMS`).

    Raises:
        TrainingError: if a name is unknown or a file is missing.
    """

    role: Literal["surrogate", "independent"]
    kind: str
    arch: str = "small"
    source: str = "others"
    images: int = 4000
    epochs: int = 12
    seed: int = 0
    objective: str = "simclr"
    watermark: WatermarkTask = "none"
    base_checkpoint: str = ""
    method: str = "direct"
    loss: str = "mse"
    view: View = "none"
    weight_transforms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_architecture(self.arch):
            raise TrainingError(f"unknown architecture {self.arch!r}", known_architectures(self.arch))
        if self.role not in ("surrogate", "independent"):
            raise TrainingError(f"unknown role {self.role!r}", "surrogate or independent")
        if self.objective not in tuple(Objective):
            raise TrainingError(f"unknown objective {self.objective!r}", f"one of: {', '.join(Objective)}")
        if self.objective == Objective.FILE and not self.base_checkpoint:
            raise TrainingError("an existing model needs its file", "give the file as a model, not as an objective")
        if self.method not in METHODS or self.method.endswith("-head"):
            known = ", ".join(m for m in METHODS if not m.endswith("-head"))
            raise TrainingError(f"unknown method {self.method!r}", f"one of: {known}")
        for step in self.weight_transforms:
            if step.split(":")[0] not in WEIGHT_TRANSFORMS:
                raise TrainingError(f"unknown weight transform {step!r}", f"any of: {', '.join(WEIGHT_TRANSFORMS)}")
            if step.split(":")[0] in EVASIONS:
                check_start(step, self.base_checkpoint)

    @property
    def base(self) -> ModelSpec:
        """The surrogate without its weight transforms."""
        return replace(self, weight_transforms=())

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as JSON-ready values."""
        return {**asdict(self), "objective": str(self.objective), "weight_transforms": list(self.weight_transforms)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """Training settings that all models of an evaluation share.

    Attributes:
        batch_size: of independent encoders.
        extraction_batch_size: of surrogates.
        lr: Adam's learning rate.
        temperature: NT-Xent's, of independent encoders.
        min_crop: smallest fraction of the image area that a crop keeps.
        flip: whether views may be mirrored.
        watermark_fraction: fraction of each batch that shows the watermark; 0.5 for short trainings on few images.
        watermark_weight: weight of the rotation loss.
        fine_tune_lr: learning rate of the weight transform "fine_tune".
    """

    batch_size: int = 256
    extraction_batch_size: int = 128
    lr: float = 2e-3
    temperature: float = 0.2
    min_crop: float = 0.2
    flip: bool = True
    watermark_fraction: float = 0.5
    watermark_weight: float = 1.0
    fine_tune_lr: float = 5e-4

    def training(self, spec: ModelSpec, **changes: Any) -> TrainConfig:
        """Return the training configuration of an independent encoder; `changes` replace its fields."""
        method = spec.objective if spec.objective in TRAINING_METHODS else "simclr"
        fields: dict[str, Any] = {
            "arch": spec.arch,
            "method": str(method),
            "epochs": spec.epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "temperature": self.temperature,
            "min_crop": self.min_crop,
            "flip": self.flip,
            "rotate": spec.objective == Objective.ROTATED,
            "watermark": spec.watermark,
            "watermark_fraction": self.watermark_fraction,
            "watermark_weight": self.watermark_weight,
            "seed": spec.seed,
        }
        return TrainConfig(**{**fields, **changes})


DEFAULT = Hyperparameters()
