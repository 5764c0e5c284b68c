"""How the models of an evaluation are made: surrogates, laundered or not, and independents of many kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks_for_eval.evasion import transforms
from attacks_for_eval.evasion.transforms import fine_tune, prune
from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import METHODS, ExtractionConfig, View, with_method
from attacks_for_eval.extraction.extract import extract, fit
from attacks_for_eval.extraction.labels import LabelObjective
from ownership.encoders.architectures import Encoder, is_architecture, known_architectures
from ownership.encoders.images import EncoderLike, as_input, three_channels
from ownership.errors import TrainingError
from ownership.io.canonical import canonical_json, sha256
from ownership.io.files import write_bytes
from ownership.io.text import printable
from ownership.suspects.suspect import load_encoder
from ownership.watermark import secret_key
from watermark_training.config import METHODS as TRAININGS
from watermark_training.config import Mark, TrainConfig
from watermark_training.data import Data
from watermark_training.device import seeded, seeded_architecture
from watermark_training.train_folder import weights_bytes
from watermark_training.training import train

OBJECTIVES = (*TRAININGS, "rotated", "supervised", "rotation", "untrained", "taught", "file")
"""How independents are trained: the methods of `turnmark train`; SimCLR on rotated views; labels; which of the four
quarter-turns an image was given (Gidaris et al. 2018); not at all; by a theft's loss from another encoder than the
victim, `ancestor` (a public one) or else one of their own, made from the same images: what the theft is worth without
its victim; by somebody else: `ancestor` is its file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model: flat and hashable, so that it is the key of what it makes."""

    role: Literal["surrogate", "independent"]
    kind: str  # what its rows are counted by
    arch: str = "small"  # name in ownership.ARCHITECTURES
    source: str = "others"  # name of the images it is made with
    images: int = 4000  # how many of them, drawn by the seed; a surrogate's unique queries
    epochs: int = 12  # passes over them
    seed: int = 0
    objective: str = "simclr"  # independents: name in OBJECTIVES
    watermark: Mark = "none"  # independents: somebody else's watermark
    base_checkpoint: str = (
        ""  # independents: file of weights that training starts or learns from; where models are kept
    )
    method: str = "direct"  # surrogates, and who is taught: name in METHODS, but for those that need a head
    loss: str = "mse"  # the same: name in LOSSES
    view: View = "none"  # surrogates: what the victim is asked (paper, Table 17)
    laundering: tuple[str, ...] = ()  # surrogates: in order, names in LAUNDERINGS, an argument after a colon

    def __post_init__(self) -> None:
        if not is_architecture(self.arch):
            raise TrainingError(f"unknown architecture {self.arch!r}", f"one of: {known_architectures()}")
        if self.role not in ("surrogate", "independent"):
            raise TrainingError(f"unknown role {self.role!r}", "surrogate or independent")
        if self.objective not in OBJECTIVES:
            raise TrainingError(f"unknown objective {self.objective!r}", f"one of: {', '.join(OBJECTIVES)}")
        if self.objective == "file" and not self.base_checkpoint:
            raise TrainingError("a model that exists needs its file", "give it as a model, not as a kind")
        if self.method not in METHODS or self.method.endswith("-head"):
            raise TrainingError(f"unknown method {self.method!r}", "any of `turnmark steal`, but for those with a head")
        for step in self.laundering:
            if step.split(":")[0] not in LAUNDERINGS:
                raise TrainingError(f"unknown laundering {step!r}", f"any of: {', '.join(LAUNDERINGS)}")

    @property
    def base(self) -> ModelSpec:
        """The theft without its laundering."""
        return replace(self, laundering=())

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as JSON-ready values."""
        return {**asdict(self), "laundering": list(self.laundering)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """How all models of an evaluation are trained."""

    batch_size: int = 256  # independents
    steal_batch_size: int = 128
    lr: float = 2e-3  # Adam's
    temperature: float = 0.2  # NT-Xent of independents
    min_crop: float = 0.2
    flip: bool = True
    watermark_fraction: float = 0.5  # short trainings on few images: the default, a twelfth, is for long ones
    watermark_weight: float = 1.0
    fine_tune_lr: float = 5e-4

    def training(self, spec: ModelSpec, **changes: Any) -> TrainConfig:
        """Returns the configuration of an independent."""
        method = spec.objective if spec.objective in TRAININGS else "simclr"
        fields: dict[str, Any] = {
            "arch": spec.arch,
            "method": method,
            "epochs": spec.epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "temperature": self.temperature,
            "min_crop": self.min_crop,
            "flip": self.flip,
            "rotate": spec.objective == "rotated",
            "watermark": spec.watermark,
            "watermark_fraction": self.watermark_fraction,
            "watermark_weight": self.watermark_weight,
            "seed": spec.seed,
        }
        return TrainConfig(**{**fields, **changes})


DEFAULT = Hyperparameters()


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ModelFactory:
    """Where models are made: what they are made from, and the folder that keeps them."""

    folder: Path
    sources: dict[str, Data]
    victim: tuple[Encoder, str] | None = None  # what surrogates are stolen from, with its digest
    settings: Hyperparameters = DEFAULT

    def path(self, spec: ModelSpec) -> Path:
        """Returns the file a model is kept in: its name follows from all that it is made from."""
        if spec.objective == "file":
            return self.folder / spec.base_checkpoint
        made_from = {
            **spec.to_dict(),
            "kind": "",
            "settings": asdict(self.settings),
            "data": self.sources[spec.source].name if spec.source in self.sources else spec.source,
            "victim": self.victim[1] if self.victim is not None and spec.role == "surrogate" else "",
        }
        return self.folder / f"{sha256(canonical_json(made_from))[:20]}.safetensors"

    def make(self, spec: ModelSpec) -> Path:
        """Returns the file of a model, made now unless it is there.

        Raises:
            TrainingError: if its images are missing or too few, or training fails.
        """
        path = self.path(spec)
        if not path.is_file():
            if spec.objective == "file":
                raise TrainingError(f"{printable(str(path), 300)} does not exist")
            encoder, arch = self._made(spec)
            write_bytes(path, weights_bytes(encoder, arch))
        return path

    def chosen(self, spec: ModelSpec) -> Data:
        """Returns the images a model is made with; a theft and an independent of one seed get the same."""
        if spec.source not in self.sources:
            raise TrainingError(f"no images called {spec.source!r}", f"there are: {', '.join(self.sources)}")
        data = self.sources[spec.source]
        if len(data) < spec.images:
            raise TrainingError(f"{spec.images} of {len(data)} images of {spec.source}", "ask for fewer")
        rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(spec.seed))[: spec.images]
        labels = None if data.labels is None else data.labels[rows]
        return Data(name=data.name, images=data.images[rows], labels=labels)

    def _made(self, spec: ModelSpec) -> tuple[Encoder, str]:
        if spec.role == "independent":
            return self._independent(spec), spec.arch
        if spec.laundering:
            before = replace(spec, laundering=spec.laundering[:-1])
            loaded = load_encoder(self.make(before))
            name, _, argument = spec.laundering[-1].partition(":")
            return LAUNDERINGS[name](self, spec, _weights(loaded.encoder), loaded.architecture or "", argument)
        return self._surrogate(spec), spec.arch

    def _surrogate(self, spec: ModelSpec) -> Encoder:
        if self.victim is None:
            raise TrainingError("there is no victim to steal from", "give one")
        data = self.chosen(spec)
        encoder, digest = self.victim
        return extract(BlackBox(encoder, name=digest), data.images, self.theft(spec), labels=data.labels)

    def theft(self, spec: ModelSpec) -> ExtractionConfig:
        """Returns the configuration of a surrogate's theft."""
        config = ExtractionConfig(
            loss=spec.loss,
            arch=spec.arch,
            queries=spec.images,
            epochs=spec.epochs,
            batch_size=self.settings.steal_batch_size,
            lr=self.settings.lr,
            victim_view=spec.view,
            seed=spec.seed,
        )
        return with_method(config, spec.method)

    def _independent(self, spec: ModelSpec) -> Encoder:
        generator = torch.Generator().manual_seed(spec.seed)
        if spec.objective == "untrained":
            return settled(seeded_architecture(spec.arch, generator), self.chosen(spec).images)
        data = self.chosen(spec)
        if spec.objective in ("supervised", "rotation"):
            return self._classifier(spec, data, generator)
        start = None
        if spec.base_checkpoint:
            start = _weights(load_encoder(self.folder / spec.base_checkpoint, spec.arch).encoder)
        if spec.objective == "taught":
            teacher = start or _weights(
                load_encoder(self.make(replace(spec, objective="simclr", loss="mse", method="direct"))).encoder
            )
            return extract(BlackBox(teacher), data.images, self.theft(spec), labels=data.labels)
        key = secret_key(torch.Generator().manual_seed(spec.seed)) if spec.watermark == "secret" else None
        return train(data.images, self.settings.training(spec), key=key, start=start).encoder

    def _classifier(self, spec: ModelSpec, data: Data, generator: torch.Generator) -> Encoder:
        """An encoder trained with labels: the images' own, or which quarter-turn they were given."""
        images, labels = data.images, data.labels
        if spec.objective == "rotation":
            turned = torch.cat([images.rot90(k, (2, 3)) for k in range(4)])
            n_rotations = torch.arange(4).repeat_interleave(len(images))
            rows = torch.randperm(len(turned), generator=generator)[: 2 * len(images)]
            images, labels = turned[rows], n_rotations[rows]
        if labels is None:
            raise TrainingError(f"{spec.source} has no labels", "leave out the objective supervised")
        encoder = seeded_architecture(spec.arch, generator)
        known = F.one_hot(labels).float()
        with seeded(generator):
            reading = LabelObjective("labels", nn.Linear(encoder.dim, known.shape[1]))
        config = replace(
            self.theft(replace(spec, images=len(images), method="direct", loss="mse", view="none")),
            surrogate_view="standard" if spec.objective == "supervised" else "colour",
        )
        fit(encoder, reading, config, images, known, generator)
        return encoder


def _weights(encoder: object) -> Encoder:
    if not isinstance(encoder, Encoder):
        raise TrainingError("only weights of a known architecture can be trained on", "give safetensors, not ONNX")
    return encoder


def settled(encoder: Encoder, images: Tensor) -> Encoder:
    """Returns an untrained encoder with its normalisation's running statistics settled on images."""
    with torch.no_grad():
        for rows in torch.split(images[:2048], 256):
            encoder.train()(three_channels(as_input(rows)))
    return encoder.eval()


# ---- laundering of models: (workshop, recipe, encoder, architecture, argument) -> encoder, architecture -------------


def _prune(_w: ModelFactory, spec: ModelSpec, encoder: Encoder, arch: str, argument: str) -> tuple[Encoder, str]:
    return _weights(prune(encoder, spec.seed, share=float(argument or 30) / 100)), arch


def _fine_tune(w: ModelFactory, spec: ModelSpec, encoder: Encoder, arch: str, argument: str) -> tuple[Encoder, str]:
    independent = replace(spec, role="independent", arch=arch, objective="simclr", watermark="none")
    config = w.settings.training(independent, epochs=int(argument or 1), lr=w.settings.fine_tune_lr)
    return fine_tune(encoder, w.chosen(spec).images, config), arch


def _distil(w: ModelFactory, spec: ModelSpec, encoder: Encoder, _arch: str, argument: str) -> tuple[Encoder, str]:
    """A second theft, from the surrogate: `distil:LOSS:ARCH`."""
    loss, _, arch = (argument or "infonce:small_vgg").partition(":")
    again = replace(spec.base, loss=loss, arch=arch or spec.arch, method="direct", view="none")
    stolen = extract(BlackBox(encoder), w.chosen(spec).images, w.theft(again))
    return stolen, again.arch


LAUNDERINGS: dict[str, Callable[[ModelFactory, ModelSpec, Encoder, str, str], tuple[Encoder, str]]] = {
    "prune": _prune,  # prune:50 = the smallest half of the weights of every layer
    "fine_tune": _fine_tune,  # fine_tune:3 = three epochs of SimCLR on the thief's queries
    "distil": _distil,  # distil:infonce:small_vgg
}
"""Name -> laundering of a stolen model that leaves weights of a known architecture."""

OUTPUTS = ("", *transforms.OUTPUTS, *transforms.WEIGHTS, "pca", "average")
"""What may be put in front of a model when it is audited; "" is nothing."""


LOSSLESS = ("permute", "rotate_basis", "scale", "pad")
"""Those that an affine map undoes."""


def put_in_front(factory: ModelFactory, spec: ModelSpec, encoder: EncoderLike, output: str) -> EncoderLike:
    """Returns a model with its answers laundered, as an API would give them out.

    Args:
        factory: where the model was made.
        spec: of the model.
        encoder: the model.
        output: name in OUTPUTS; "pca" keeps the leading half on the thief's queries, "average" is the mean with an
            independent of the same images.

    Raises:
        TrainingError: if the name is unknown.
    """
    if output == "":
        return encoder
    if output == "pca":
        return transforms.pca(encoder, factory.chosen(spec).images)
    if output == "average":
        other = replace(spec.base, role="independent", objective="simclr", watermark="none", base_checkpoint="")
        return transforms.average(encoder, load_encoder(factory.make(other)).encoder)
    return transforms.launder(encoder, [output], seed=spec.seed)
