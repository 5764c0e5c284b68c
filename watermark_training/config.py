"""The configuration of one training run: flat, frozen, saved with the encoder it made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ownership.encoders.architectures import CUSTOM, is_architecture, known_architectures
from ownership.errors import TrainingError

Method = Literal["simclr", "simsiam", "barlow", "embed"]
METHODS: tuple[Method, ...] = ("simclr", "simsiam", "barlow")
"""How an encoder is trained from the start; "embed" adds the mark to one that exists."""
Mark = Literal["secret", "paper", "none"]
MARKS: tuple[Mark, ...] = ("secret", "paper", "none")
PREDICTORS = ("trained", "frozen")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What `train` needs to know; the defaults are the paper's (section 4.1 and its released code)."""

    arch: str = (
        "resnet18"  # name that ownership.encoders.architectures.make_encoder takes; custom: the encoder to start from
    )
    method: Method = "simclr"  # SimCLR, SimSiam, Barlow Twins; or embed
    epochs: int = 200  # passes over the data
    batch_size: int = 256  # images a step; two contrastive views each; shared by the processes of torchrun
    accumulate: int = 1  # steps whose gradients make one update; only images of one step are negatives of each other
    lr: float = 3e-4  # Adam; cosine schedule to zero
    weight_decay: float = 1e-4
    temperature: float = 0.07  # NT-Xent (SimCLR)
    projection_dim: int = 128  # of the head's output
    min_crop: float = 0.08  # smallest share of the area that a crop keeps
    flip: bool = True  # whether views may be mirrored
    rotate: bool = False  # whether views are turned by any angle, too: an encoder without orientation; no mark then
    watermark: Mark = "secret"  # secret: fresh key; paper: public half-turn task; none: plain encoder
    watermark_weight: float = 1.0  # weight of the rotation loss beside the method's own
    watermark_fraction: float = (
        0.08  # share of each batch that also gets two rotated views; .5 for few images or passes
    )
    predictor: Literal["trained", "frozen"] = "trained"  # or as the key drew it (docs/adr/0002, 0020)
    seed: int = 0  # initial weights, order, augmentation (with a secret mark: together with the key); never the key
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 autocast where hardware has it
    compile: bool = False  # whether torch.compile makes the encoder's passes: faster steps after a minute of compiling

    def __post_init__(self) -> None:
        if self.arch != CUSTOM and not is_architecture(self.arch):
            raise TrainingError(f"unknown architecture {self.arch!r}", f"one of: {known_architectures()}")
        for what, value, known in (
            ("watermark", self.watermark, MARKS),
            ("method", self.method, (*METHODS, "embed")),
            ("precision", self.precision, PRECISIONS),
            ("predictor", self.predictor, PREDICTORS),
        ):
            if value not in known:
                raise TrainingError(f"unknown {what} {value!r}", f"one of: {', '.join(known)}")
        if self.rotate and self.watermark != "none":
            raise TrainingError("rotated views erase a rotation mark", "leave out rotate, or train with mark none")
        if self.method == "embed" and self.watermark == "none":
            raise TrainingError("nothing to embed: the mark is none", "mark secret")
        for name, low in (("epochs", 1), ("batch_size", 8), ("accumulate", 1), ("projection_dim", 2)):
            if getattr(self, name) < low:
                raise TrainingError(f"{name} is {getattr(self, name)}", f"at least {low}")
        for name in ("lr", "temperature", "min_crop", "watermark_fraction", "watermark_weight"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name} is {getattr(self, name)}", "must be above 0")
        if self.min_crop > 1 or self.watermark_fraction > 1:
            raise TrainingError("min_crop and watermark_fraction are shares", "at most 1")

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as JSON-ready values; what came later is left out at its default.

        So the folders of earlier versions are known again.
        """
        later = {"accumulate": 1, "predictor": "trained", "compile": False}
        return {k: v for k, v in asdict(self).items() if k not in later or v != later[k]}
