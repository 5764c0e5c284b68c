"""The configuration of one training run: flat, frozen, saved with the encoder it made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from ownership.encoders.architectures import CUSTOM, is_architecture, known_architectures
from ownership.errors import TrainingError
from watermark_training.choices import ROTATION_TASKS, Objective, Precision, PredictorTraining
from watermark_training.choices import WatermarkTask as WatermarkTask

Method = Literal[Objective, "embed"]
METHODS = get_args(Objective)
"""Methods that train an encoder from initial weights; "embed" adds the watermark to a trained encoder."""

WATERMARK_TASKS = get_args(WatermarkTask)
PREDICTORS = get_args(PredictorTraining)
PRECISIONS = get_args(Precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Configuration of `train`; the defaults are the paper's (section 4.1 and its released code), but the watermark.

    Attributes:
        arch: name that `ownership.encoders.architectures.make_encoder` takes; "custom" for the `start` encoder's.
        method: SimCLR, SimSiam, Barlow Twins, or embed (retrofit a watermark).
        epochs: times that training sees the whole data set.
        batch_size: images in one step, each with two contrastive views; torchrun's processes share the batch.
        accumulate: steps whose gradients make one update; negatives come from the same step only.
        lr: Adam's learning rate; it falls to zero along a cosine.
        weight_decay: Adam's weight decay.
        temperature: of NT-Xent (SimCLR).
        projection_dim: length of the projection head's output.
        min_crop: smallest fraction of the image area that a crop keeps.
        flip: whether views may be mirrored.
        rotate: whether views are also rotated by any angle, which makes the encoder rotation-invariant; excludes a
            rotation watermark.
        watermark: the watermark (`WATERMARK_TASKS`): keyed, or a rotation task.
        keyed_weight: weight of the keyed watermark's loss beside the method's loss, in units that suit the method
            (`KEYED_SCALES`).
        keyed_fraction: fraction of each batch that is also shown without augmentation, for the keyed watermark.
        keyed_views: whether these images are cropped at random, with targets of the crops; for large encoders and few
            images (`KeyedWatermark`).
        watermark_weight: weight of the rotation loss beside the method's loss.
        watermark_fraction: fraction of each batch that is also shown as two rotated views; 0.5 for short trainings.
        predictor: whether the rotation predictor is trained, or keeps the weights drawn from the key (docs/adr/0002).
        seed: of initial weights, order and augmentation, for a watermark with a secret key together with the key; the
            key itself never follows from it.
        precision: auto uses bfloat16 autocast where the hardware supports it.
        compile: whether `torch.compile` compiles the encoder, which takes about a minute and makes steps faster.

    Raises:
        TrainingError: if a value is unknown, out of range, or contradicts another one.
    """

    arch: str = "resnet18"
    method: Method = "simclr"
    epochs: int = 200
    batch_size: int = 256
    accumulate: int = 1
    lr: float = 3e-4
    weight_decay: float = 1e-4
    temperature: float = 0.07
    projection_dim: int = 128
    min_crop: float = 0.08
    flip: bool = True
    rotate: bool = False
    watermark: WatermarkTask = "keyed"
    keyed_weight: float = 0.1
    keyed_fraction: float = 0.25
    keyed_views: bool = False
    watermark_weight: float = 1.0
    watermark_fraction: float = 0.08
    predictor: PredictorTraining = "trained"
    seed: int = 0
    precision: Precision = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.arch != CUSTOM and not is_architecture(self.arch):
            raise TrainingError(f"unknown architecture {self.arch!r}", known_architectures(self.arch))
        for what, value, known in (
            ("watermark", self.watermark, WATERMARK_TASKS),
            ("method", self.method, (*METHODS, "embed")),
            ("precision", self.precision, PRECISIONS),
            ("predictor", self.predictor, PREDICTORS),
        ):
            if value not in known:
                raise TrainingError(f"unknown {what} {value!r}", f"one of: {', '.join(known)}")
        if self.rotate and self.watermark in ROTATION_TASKS:
            raise TrainingError(
                "rotated views erase a rotation watermark", "leave out rotate, or train with watermark keyed or none"
            )
        if self.method == "embed" and self.watermark == "none":
            raise TrainingError("nothing to embed: the watermark is none", "use watermark keyed or secret")
        for name, low in (("epochs", 1), ("batch_size", 8), ("accumulate", 1), ("projection_dim", 2)):
            if getattr(self, name) < low:
                raise TrainingError(f"{name} is {getattr(self, name)}", f"at least {low}")
        fractions = ("min_crop", "watermark_fraction", "keyed_fraction")
        for name in ("lr", "temperature", "watermark_weight", "keyed_weight", *fractions):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name} is {getattr(self, name)}", "must be above 0")
        for name in fractions:
            if getattr(self, name) > 1:
                raise TrainingError(f"{name} is {getattr(self, name)}, not a fraction", "at most 1")

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON-ready values."""
        return asdict(self)
