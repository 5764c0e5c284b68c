"""Making the models of an evaluation from their specifications."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacks_for_eval.evaluation.spec import DEFAULT, Hyperparameters, ModelSpec, Objective
from attacks_for_eval.evasion.apply import evade
from attacks_for_eval.evasion.attacker import Attacker
from attacks_for_eval.evasion.weights import fine_tune
from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig, with_method
from attacks_for_eval.extraction.extract import Examples, extract, fit
from attacks_for_eval.extraction.labels import LabelObjective
from attacks_for_eval.seeded_key import seeded_key
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike, as_input, three_channels
from ownership.errors import TrainingError
from ownership.io.canonical import canonical_json, sha256
from ownership.io.files import write_bytes
from ownership.io.text import printable
from ownership.keyed.pool import KeyMaterial
from ownership.suspects.suspect import load_encoder
from ownership.watermark import secret_key
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.device import seeded, seeded_architecture
from watermark_training.embed import EMBEDDING_DEFAULTS
from watermark_training.encoder_files import weights_bytes
from watermark_training.key_material import held_out
from watermark_training.training import train


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class ModelFactory:
    """Makes models and keeps their files.

    Attributes:
        folder: where the files are kept.
        sources: name -> images that models are made with.
        victim: encoder that surrogates are extracted from, and its SHA-256.
        settings: what all models share.
    """

    folder: Path
    sources: dict[str, Data]
    victim: tuple[Encoder, str] | None = None
    settings: Hyperparameters = DEFAULT

    def path(self, spec: ModelSpec) -> Path:
        """Return the file of a model: its name is a hash of everything that the model is made from."""
        if spec.objective == Objective.FILE:
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
        """Return the file of a model; the model is made unless its file exists.

        Raises:
            TrainingError: if its images are missing or too few, or training fails.
        """
        path = self.path(spec)
        if not path.is_file():
            if spec.objective == Objective.FILE:
                raise TrainingError(f"{printable(str(path), 300)} does not exist")
            encoder, arch = self._made(spec)
            write_bytes(path, weights_bytes(encoder, arch))
        return path

    def chosen(self, spec: ModelSpec) -> Data:
        """Return the images a model is made with; a surrogate and an independent encoder of one seed get the same."""
        if spec.source not in self.sources:
            raise TrainingError(f"no images called {spec.source!r}", f"there are: {', '.join(self.sources)}")
        data = self.sources[spec.source]
        if len(data) < spec.images:
            raise TrainingError(f"{spec.images} of {len(data)} images of {spec.source}", "use fewer images")
        rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(spec.seed))[: spec.images]
        labels = None if data.labels is None else data.labels[rows]
        return Data(name=data.name, images=data.images[rows], labels=labels)

    def extraction(self, spec: ModelSpec) -> ExtractionConfig:
        """Return the configuration that a surrogate is extracted with."""
        config = ExtractionConfig(
            loss=spec.loss,
            arch=spec.arch,
            queries=spec.images,
            epochs=spec.epochs,
            batch_size=self.settings.extraction_batch_size,
            lr=self.settings.lr,
            victim_view=spec.view,
            seed=spec.seed,
        )
        return with_method(config, spec.method)

    def _made(self, spec: ModelSpec) -> tuple[Encoder, str]:
        if spec.role == "independent":
            return self._independent(spec), spec.arch
        if spec.weight_transforms:
            before = replace(spec, weight_transforms=spec.weight_transforms[:-1])
            loaded = load_encoder(self.make(before))
            encoder, arch, step = _weights(loaded.encoder), loaded.architecture or "", spec.weight_transforms[-1]
            name, _, argument = step.partition(":")
            if name not in TRANSFORMED:
                return _weights(evade(encoder, step, _attacker(self, spec, arch))), arch
            return TRANSFORMED[name](self, spec, encoder, arch, argument)
        return self._surrogate(spec), spec.arch

    def _surrogate(self, spec: ModelSpec) -> Encoder:
        if self.victim is None:
            raise TrainingError("there is no victim to extract a surrogate from", "give a victim")
        data = self.chosen(spec)
        encoder, digest = self.victim
        start = self._start(spec)
        config = self.extraction(spec)
        own = _attacker(self, spec).own_encoder() if config.needs_own_encoder else None
        box = BlackBox(encoder, name=digest)
        return extract(box, data.images, config, labels=data.labels, start=start, own=own)

    def _start(self, spec: ModelSpec) -> Encoder | None:
        if not spec.base_checkpoint:
            return None
        return _weights(load_encoder(self.folder / spec.base_checkpoint, spec.arch).encoder)

    def _independent(self, spec: ModelSpec) -> Encoder:
        generator = torch.Generator().manual_seed(spec.seed)
        data = self.chosen(spec)
        if spec.objective == Objective.UNTRAINED:
            return with_settled_batch_norm(seeded_architecture(spec.arch, generator), data.images)
        if spec.objective in (Objective.SUPERVISED, Objective.ROTATION):
            return self._classifier(spec, data, generator)
        start = self._start(spec)
        if spec.objective == Objective.DISTILLED:
            teacher = start or _weights(
                load_encoder(self.make(replace(spec, objective="simclr", loss="mse", method="direct"))).encoder
            )
            return extract(BlackBox(teacher), data.images, self.extraction(spec), labels=data.labels)
        key = secret_key(torch.Generator().manual_seed(spec.seed)) if spec.watermark == "secret" else None
        material, images = _with_key(data.images, spec.seed) if spec.watermark == "keyed" else (None, data.images)
        return train(images, self.settings.training(spec), key=key, material=material, start=start).encoder

    def _classifier(self, spec: ModelSpec, data: Data, generator: torch.Generator) -> Encoder:
        """An encoder trained to classify the images' labels, or the 90-degree rotation they were given."""
        images, labels = data.images, data.labels
        if spec.objective == Objective.ROTATION:
            rotated = torch.cat([images.rot90(k, (2, 3)) for k in range(4)])
            n_rotations = torch.arange(4).repeat_interleave(len(images))
            rows = torch.randperm(len(rotated), generator=generator)[: 2 * len(images)]
            images, labels = rotated[rows], n_rotations[rows]
        if labels is None:
            raise TrainingError(f"{spec.source} has no labels", "leave out the objective supervised")
        encoder = seeded_architecture(spec.arch, generator)
        known = F.one_hot(labels).float()
        with seeded(generator):
            objective = LabelObjective("labels", nn.Linear(encoder.dim, known.shape[1]))
        config = replace(
            self.extraction(replace(spec, images=len(images), method="direct", loss="mse", view="none")),
            surrogate_view="standard" if spec.objective == Objective.SUPERVISED else "color",
        )
        fit(encoder, objective, config, Examples(images=images, responses=known), generator)
        return encoder


def _weights(encoder: object) -> Encoder:
    if not isinstance(encoder, Encoder):
        raise TrainingError("only weights of a known architecture can be trained", "give safetensors, not ONNX")
    return encoder


def _with_key(images: Tensor, seed: int) -> tuple[KeyMaterial, Tensor]:
    """A key that follows from a seed, its pool held out of the images, and the images that are left."""
    kept, rest = held_out(len(images), seed)
    return seeded_key(f"evaluation, key {seed}", images[rest]), images[kept]


def with_settled_batch_norm(encoder: Encoder, images: Tensor) -> Encoder:
    """Return an untrained encoder after its normalization's running statistics were set on images."""
    with torch.no_grad():
        for rows in torch.split(images[:2048], 256):
            encoder.train()(three_channels(as_input(rows)))
    return encoder.eval()


def _fine_tune(f: ModelFactory, spec: ModelSpec, encoder: Encoder, arch: str, argument: str) -> tuple[Encoder, str]:
    independent = replace(spec, role="independent", arch=arch, objective="simclr", watermark="none")
    config = f.settings.training(independent, epochs=int(argument or 1), lr=f.settings.fine_tune_lr)
    return fine_tune(encoder, f.chosen(spec).images, config), arch


def _distil(f: ModelFactory, spec: ModelSpec, encoder: Encoder, _arch: str, argument: str) -> tuple[Encoder, str]:
    loss, _, arch = (argument or "infonce:small_vgg").partition(":")
    second = replace(spec.base, loss=loss, arch=arch or spec.arch, method="direct", view="none")
    return extract(BlackBox(encoder), f.chosen(spec).images, f.extraction(second)), second.arch


def _embed(f: ModelFactory, spec: ModelSpec, encoder: Encoder, arch: str, argument: str) -> tuple[Encoder, str]:
    changes = {**EMBEDDING_DEFAULTS, "epochs": int(argument or EMBEDDING_DEFAULTS["epochs"]), "seed": spec.seed}
    material, images = _with_key(f.chosen(spec).images, spec.seed)
    config = TrainConfig(arch=arch, method="embed", **changes)
    return train(images, config, material=material, start=encoder).encoder, arch


TRANSFORMED: dict[str, Callable[[ModelFactory, ModelSpec, Encoder, str, str], tuple[Encoder, str]]] = {
    "fine_tune": _fine_tune,
    "distil": _distil,
    "embed": _embed,
}
"""Weight transform that makes another file -> (factory, spec, encoder, architecture, argument) -> the same two.

All others are evasions of `evasion.apply.EVASIONS` that change weights.
"""


def _attacker(factory: ModelFactory, spec: ModelSpec, arch: str = "") -> Attacker:
    """What the attacker has who made a model: its images, and a SimCLR encoder of them, of the same architecture.

    The encoder is started from the checkpoint that the surrogate was started from.
    """
    other = replace(
        spec.base, role="independent", objective="simclr", watermark="none", arch=arch or spec.arch, method="direct"
    )
    data = factory.chosen(spec)
    base = factory.folder / spec.base_checkpoint
    return Attacker(
        images=data.images,
        labels=data.labels,
        encoder=lambda: load_encoder(factory.make(other)).encoder,
        checkpoint=(lambda: load_encoder(base, spec.arch).encoder) if spec.base_checkpoint else None,
        seed=spec.seed,
    )


def transform_outputs(
    factory: ModelFactory, spec: ModelSpec, encoder: EncoderLike, chain: str, probes: Tensor | None = None
) -> EncoderLike:
    """Return a model after a chain of evasions that need no training, as an attacker's API would serve it.

    Args:
        factory: makes the models.
        spec: of the model; its images are the attacker's own, as is a SimCLR encoder that is trained on them.
        encoder: the model.
        chain: names in `EVASIONS`, joined by a plus; "" for none.
        probes: those of a claim that the attacker knows.

    Raises:
        TrainingError: if the chain is malformed.
    """
    if chain == "":
        return encoder
    return evade(encoder, chain, replace(_attacker(factory, spec), probes=probes))
