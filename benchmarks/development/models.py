"""The development models: victims, panel, independents, surrogates; how they are made, and their responses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacks_for_eval.evaluation.factory import ModelFactory
from attacks_for_eval.evaluation.spec import Hyperparameters, ModelSpec
from benchmarks.development.candidates import PLAN
from benchmarks.verdicts import design
from benchmarks.verdicts.design import DISTILLED, MEMBERS, Scale, independent
from benchmarks.verdicts.suspects import surrogate
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import as_input, as_uint8, represent
from ownership.evidence.responses import Responses
from ownership.suspects.suspect import load_encoder
from ownership.watermark import TURN, rotate, secret_key
from watermark_training.data import Data, load_data
from watermark_training.embed import embed_to
from watermark_training.loaded_encoder import load_trained
from watermark_training.train_folder import train_to

PARTS = {  # name -> split, first image, end
    "fashion-mnist": {
        "private": ("train", 0, 4_000),
        "checkpoint": ("train", 4_000, 10_000),
        "panel": ("train", 10_000, 14_000),
        "queries": ("train", 4_000, 14_000),
        "public": ("test", 0, 1_000),
    },
    "cifar10": {
        "private": ("train", 46_000, 50_000),
        "checkpoint": ("test", 5_000, 10_000),
        "panel": ("train", 0, 4_000),
        "queries": ("train", 4_000, 10_000),
        "public": ("test", 0, 1_000),
    },
}
SETTINGS = Hyperparameters()
STRATA = ("plain", "watermarked", "rotation_invariant", "sibling", "distilled")
VICTIMS = (0, 1, 2, 3, 4, 5, 6, 7)
"""0, 6 and 7 are trained from random weights, the others are fine-tunes; 2 and 3 served the watermark statistic."""
FROM_RANDOM = (0, 6, 7)
TEACHERS = (8120, 8121, 8100, 8101, 8140, 8141)
"""Seeds of the independents from which others are distilled."""
EMBEDDED = (4, 5)
"""One victim, whose watermark was embedded in the checkpoint (ADR 9), to choose a predictor on. 4: audited as if the
checkpoint were public; 5: as if only its owner had it, so that it and its fine-tunes are in no panel."""


def _trained_victim(victim: int) -> int:
    """Return the victim that was trained: the two embedded ones are one."""
    return EMBEDDED[0] if victim == EMBEDDED[1] else victim


def weights_of(encoder: object) -> Encoder:
    """Return the encoder, which must be one of our architectures."""
    assert isinstance(encoder, Encoder)
    return encoder


class Group:
    """The models of one data set."""

    def __init__(self, scale: Scale, work: Path) -> None:
        self.scale, self.work = scale, work / scale.data
        self.session: dict[Path, dict[str, Any]] = {}
        splits = {split: load_data(f"{scale.data}:{split}") for split in ("train", "test")}
        self.sources: dict[str, Data] = {}
        for name, (split, a, b) in PARTS[scale.data].items():
            images, labels = splits[split].images[a:b], splits[split].labels
            self.sources[name] = Data(
                name=f"{scale.data}:{split}[{a}:{b}]", images=images, labels=None if labels is None else labels[a:b]
            )
        self.factory = ModelFactory(folder=self.work / "models", sources=self.sources, settings=SETTINGS)
        size = len(self.sources["checkpoint"])
        self.checkpoint = independent(scale, "checkpoint", 950, source="checkpoint", images=size)

    def victim_folder(self, victim: int) -> Path:
        """Return the train folder of a victim."""
        return self.work / f"victim_{_trained_victim(victim)}"

    def surrogate_factory(self, victim: int) -> ModelFactory:
        """Return the factory of a victim's surrogates; train the victim if it does not exist."""
        victim = _trained_victim(victim)
        folder, private, start, epochs = self.victim_folder(victim), self.sources["private"], None, self.scale.epochs
        key = secret_key(torch.Generator().manual_seed(190 + victim))
        spec = independent(self.scale, "victim", 190 + victim, watermark="secret")
        if victim not in FROM_RANDOM:
            checkpoint = self.factory.make(self.checkpoint)
            start, epochs = weights_of(load_encoder(checkpoint).encoder), self.scale.fine_tune_epochs
        if victim in EMBEDDED:
            embed_to(folder, load_trained(checkpoint), private, {"watermark": "secret", "seed": 190 + victim}, key=key)
        else:
            train_to(folder, private, SETTINGS.training(spec, epochs=epochs), key=key, start=start)
        loaded = load_trained(folder)
        return replace(self.factory, victim=(weights_of(loaded.encoder), loaded.sha256))

    def members(self) -> Iterator[tuple[str, ModelSpec]]:
        """Yield the stratum and spec of each panel member; siblings are for fine-tuned victims only."""
        for i in range(MEMBERS):
            yield "plain", independent(self.scale, "panel", 8000 + i, source="private" if i < 3 else "panel")
        for i in range(MEMBERS):
            fields = {
                "source": "private" if i < 3 else "panel",
                "watermark": "paper" if i in (0, 3, 8, 12) else "secret",
            }
            yield "watermarked", independent(self.scale, "panel", 8020 + i, **fields)
        for i in range(MEMBERS):
            source = "private" if i < 3 else "panel"
            yield "rotation_invariant", independent(self.scale, "panel", 8060 + i, source=source, objective="rotated")
        yield "sibling", self.checkpoint
        for i in range(MEMBERS - 1):
            source = "private" if i % 6 < 3 else "panel"
            yield "sibling", self.from_checkpoint(8040 + i, source, ("none", "secret", "paper")[i % 3])

    def distilled_controls(self, victim: int) -> Iterator[ModelSpec]:
        """Yield the distilled members of a victim's panel, of the kinds in the verdict benchmark's panels."""
        members = [(s, r) for s, r in self.members() if s != "sibling" or victim not in FROM_RANDOM]
        for _, spec in design.distilled_controls(self.scale, members, lambda r: self.factory.path(r).name):
            yield replace(spec, images=4000, epochs=max(1, round(spec.epochs * self.scale.usual_queries / 4000)))

    def from_checkpoint(self, seed: int, source: str, watermark: str) -> ModelSpec:
        """Return the spec of a fine-tune of the public checkpoint."""
        name, epochs = self.factory.path(self.checkpoint).name, self.scale.fine_tune_epochs
        return independent(
            self.scale, "sibling", seed, source=source, watermark=watermark, base_checkpoint=name, epochs=epochs
        )

    def independents(self) -> Iterator[ModelSpec]:
        """Yield the independents that are in no panel."""
        yield from self.undistilled()
        yield from self.distilled()

    def undistilled(self) -> Iterator[ModelSpec]:
        """Yield the independents that are not distilled from other independents."""
        for i, objective in enumerate(("simclr", "rotated", "simclr", "rotated", "barlow", "supervised", "rotated")):
            source = "private" if i % 3 else "panel"
            yield independent(self.scale, objective, 8100 + i, source=source, objective=objective)
        for i in range(2):
            yield independent(self.scale, "foreign key", 8120 + i, source=("private", "panel")[i], watermark="secret")
        for i, arch in enumerate(("small_wide", "small_vgg")):
            yield independent(self.scale, arch, 8130 + i, source=("private", "panel")[i], arch=arch)
        yield independent(self.scale, "queries", 8150, source="queries", images=5000)
        # of the fine-tuned victims' public checkpoint, which the first victim does not share: fine-tunes, on rotated
        # views too, and encoders distilled from it
        for i in range(5):
            spec = self.from_checkpoint(
                8140 + i, ("private", "panel")[i % 2], ("none", "secret", "secret", "none", "none")[i]
            )
            yield spec if i < 3 else replace(spec, kind="sibling, rotated", objective="rotated")
        fields = {
            "objective": DISTILLED,
            "base_checkpoint": self.factory.path(self.checkpoint).name,
            "source": "queries",
        }
        for i, loss in enumerate(("mse", "infonce")):
            for method in ("direct", "rotated"):
                way = {
                    "loss": loss,
                    "method": method,
                    "images": self.scale.usual_queries,
                    "epochs": self.scale.extraction_epochs,
                }
                yield independent(self.scale, f"distilled, {loss}, {method}", 8160 + i, **fields, **way)

    def teachers(self) -> list[ModelSpec]:
        """Return the independents from which others are distilled: no panel member, no victim's checkpoint."""
        by_seed = {r.seed: r for r in self.undistilled()}
        return [by_seed[seed] for seed in TEACHERS]

    def distilled(self) -> Iterator[ModelSpec]:
        """Yield encoders distilled from the teachers: of rotated images, the teacher's responses to unrotated ones."""
        for i, teacher in enumerate(self.teachers()):
            way = {
                "loss": ("mse", "infonce")[i % 2],
                "images": self.scale.usual_queries,
                "epochs": self.scale.extraction_epochs,
            }
            fields = {"objective": DISTILLED, "method": "rotated", "base_checkpoint": self.factory.path(teacher).name}
            spec = independent(
                self.scale, f"distilled from {teacher.kind}", 8170 + i, source="queries", **fields, **way
            )
            yield spec
            if i < 2:  # distilled for longer
                yield replace(spec, kind=f"{spec.kind}, longer", epochs=2 * self.scale.extraction_epochs)

    def surrogates(self, victim: int) -> Iterator[ModelSpec]:
        """Yield the surrogates that are hard to find, and one that is easy."""
        fields: dict[str, dict[str, Any]] = {
            "infonce": {"loss": "infonce"},
            "wasserstein": {"loss": "wasserstein"},
            "supcon": {"loss": "supcon"},
            "symmetrized": {"loss": "symmetrized"},
            "softnn, VGG-like": {"loss": "softnn", "arch": "small_vgg"},
            "infonce, transformer": {"loss": "infonce", "arch": "small_vit"},
            "mse, half pruned": {"loss": "mse", "weight_transforms": ("prune:50",)},
            "infonce, 70 % pruned": {"loss": "infonce", "weight_transforms": ("prune:70",)},
            "mse, distilled again": {"loss": "mse", "weight_transforms": ("distil:infonce:small_vgg",)},
        }
        for loss in ("mse", "infonce"):
            for longer in (1, 2):
                fields[f"{loss}, rotated, {longer}"] = {"loss": loss, "method": "rotated", "longer": longer}
        fields["mse"] = {"loss": "mse"}
        for i, (kind, changes) in enumerate(fields.items()):
            yield surrogate(self.scale, _trained_victim(victim), kind, 1000 + i, **changes)

    def models(self, victim: int) -> Iterator[tuple[str, str, Path]]:
        """Yield role or stratum, name and file of the models that exist, for one victim."""
        attacked = self.surrogate_factory(victim)
        made = [(stratum, f"{stratum} {i}", r, self.factory) for i, (stratum, r) in enumerate(self.members())]
        made += [("distilled", f"distilled {r.seed}", r, self.factory) for r in self.distilled_controls(victim)]
        made += [("independent", f"{r.kind} {r.seed}", r, self.factory) for r in self.independents()]
        made += [("surrogate", r.kind, r, attacked) for r in self.surrogates(victim)]
        if victim == EMBEDDED[1]:
            from_checkpoint = self.factory.path(self.checkpoint).name
            made = [
                ("sibling suspect" if r.base_checkpoint == from_checkpoint or role == "sibling" else role, n, r, f)
                for role, n, r, f in made
            ]
        for role, name, spec, factory in made:
            path = factory.path(spec)
            if path.is_file() and (victim not in FROM_RANDOM or role != "sibling"):
                yield role, name, path

    @cached_property
    def probes(self) -> dict[str, Tensor]:
        """The images that all encoders are queried with: public ones, unrotated and rotated."""
        public = self.sources["public"].images
        angles = torch.rand(PLAN.n_rotations * PLAN.n_rotated, generator=torch.Generator().manual_seed(0)) * TURN
        rotated = as_uint8(rotate(as_input(public[: PLAN.n_rotated]).repeat(PLAN.n_rotations, 1, 1, 1), angles))
        return {"public": public, "rotated": rotated}

    def responses(self, name: str, path: Path, watermarked: Tensor | None) -> Responses:
        """Return an encoder's responses to the probes (cached), and to rotated pairs of them if any are given."""
        encoder = weights_of(load_encoder(path).encoder)
        if path not in self.session:
            self.session[path] = {k: represent(encoder, x).numpy() for k, x in self.probes.items()}
        own = {} if watermarked is None else {"watermark": represent(encoder, watermarked).numpy()}
        return Responses(name, self.session[path] | own)

    def jobs(self, victims: list[int]) -> Iterator[tuple[int | None, ModelSpec]]:
        """Yield the models to be made: the victim of a surrogate (None: not a surrogate) and the spec."""
        distilled = dict.fromkeys(r for victim in victims for r in self.distilled_controls(victim))
        every = [*(r for _, r in self.members()), *distilled, *self.independents()]
        yield from ((None, r) for r in every if not self.factory.path(r).is_file())
        for victim in victims:
            attacked = self.surrogate_factory(victim)
            yield from ((victim, r) for r in self.surrogates(victim) if not attacked.path(r).is_file())

    def make(self, job: tuple[int | None, ModelSpec]) -> None:
        """Make one model."""
        victim, spec = job
        for teacher in (*self.teachers(), *(r for _, r in self.members())):
            if self.factory.path(teacher).name == spec.base_checkpoint:
                self.factory.make(teacher)
        (self.factory if victim is None else self.surrogate_factory(victim)).make(spec)
