"""Who the development models of the verdict benchmark are, how they are made, and what they answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import design
from candidates import PLAN
from design import MEMBERS, Scale, independent, theft

from attacks_for_eval.evaluation.spec import Hyperparameters, ModelFactory, ModelSpec
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import as_input, as_uint8, represent
from ownership.evidence.responses import Responses
from ownership.suspects.suspect import load_encoder
from ownership.watermark import TURN, rotate, secret_key
from watermark_training.data import Data, load_data
from watermark_training.embed import embed_to
from watermark_training.train_folder import load_trained, train_to

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
"""0, 6 and 7 are trained from the start, the others are grown; 2 and 3 were made to choose a reading of the mark on."""
FROM_START = (0, 6, 7)
TEACHERS = (8120, 8121, 8100, 8101, 8140, 8141)
"""Seeds of the independents who teach others."""
EMBEDDED = (4, 5)
"""One victim, whose mark was embedded in the checkpoint (docs/adr/0009), to choose a predictor on. 4: read as if
it were public; 5: as if nobody else had it, so that it and its fine-tunes are no innocents and in no panel."""


def _made(victim: int) -> int:
    """Returns the victim that was trained: the two embedded ones are one."""
    return EMBEDDED[0] if victim == EMBEDDED[1] else victim


def weights_of(encoder: object) -> Encoder:
    """Returns one of our own encoders as that."""
    assert isinstance(encoder, Encoder)
    return encoder


class Group:
    """The models of one data set: who they are, how they are made, what they answer."""

    def __init__(self, scale: Scale, work: Path) -> None:
        self.scale, self.work = scale, work / scale.data
        self.session: dict[Path, dict[str, Any]] = {}
        whole = {split: load_data(f"{scale.data}:{split}") for split in ("train", "test")}
        self.sources: dict[str, Data] = {}
        for name, (split, a, b) in PARTS[scale.data].items():
            images, labels = whole[split].images[a:b], whole[split].labels
            self.sources[name] = Data(
                name=f"{scale.data}:{split}[{a}:{b}]", images=images, labels=None if labels is None else labels[a:b]
            )
        self.shop = ModelFactory(folder=self.work / "models", sources=self.sources, settings=SETTINGS)
        size = len(self.sources["checkpoint"])
        self.checkpoint = independent(scale, "checkpoint", 950, source="checkpoint", images=size)

    def victim_folder(self, victim: int) -> Path:
        """Where a victim lies."""
        return self.work / f"victim_{_made(victim)}"

    def thief(self, victim: int) -> ModelFactory:
        """Where what is stolen from a victim (0: from the start) is made; trains the victim if need be."""
        victim = _made(victim)
        folder, private, start, epochs = self.victim_folder(victim), self.sources["private"], None, self.scale.epochs
        key = secret_key(torch.Generator().manual_seed(190 + victim))
        spec = independent(self.scale, "victim", 190 + victim, watermark="secret")
        if victim not in FROM_START:
            checkpoint = self.shop.make(self.checkpoint)
            start, epochs = weights_of(load_encoder(checkpoint).encoder), self.scale.fine_tune_epochs
        if victim in EMBEDDED:
            embed_to(folder, load_trained(checkpoint), private, {"seed": 190 + victim}, key=key)
        else:
            train_to(folder, private, SETTINGS.training(spec, epochs=epochs), key=key, start=start)
        loaded = load_trained(folder)
        return replace(self.shop, victim=(weights_of(loaded.encoder), loaded.sha256))

    def members(self) -> Iterator[tuple[str, ModelSpec]]:
        """Yields the stratum and recipe of each panel member; those of "ancestor" are grown victims' only."""
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

    def students(self, victim: int) -> Iterator[ModelSpec]:
        """Yields a victim's panel's students, of the kinds that the benchmark's panels hold."""
        members = [(s, r) for s, r in self.members() if s != "sibling" or victim not in FROM_START]
        for _, spec in design.students(self.scale, members, lambda r: self.shop.path(r).name):
            yield replace(spec, images=4000, epochs=max(1, round(spec.epochs * self.scale.usual / 4000)))

    def from_checkpoint(self, seed: int, source: str, watermark: str) -> ModelSpec:
        """Returns the recipe of a fine-tune of the public checkpoint."""
        name, epochs = self.shop.path(self.checkpoint).name, self.scale.fine_tune_epochs
        return independent(
            self.scale, "kin", seed, source=source, watermark=watermark, base_checkpoint=name, epochs=epochs
        )

    def innocents(self) -> Iterator[ModelSpec]:
        """Yields independents that are in no panel."""
        yield from self.panel_specs()
        yield from self.foreign_students()

    def panel_specs(self) -> Iterator[ModelSpec]:
        """Yields those whom no other stranger taught."""
        for i, objective in enumerate(("simclr", "rotated", "simclr", "rotated", "barlow", "supervised", "rotated")):
            source = "private" if i % 3 else "panel"
            yield independent(self.scale, objective, 8100 + i, source=source, objective=objective)
        for i in range(2):
            yield independent(self.scale, "foreign key", 8120 + i, source=("private", "panel")[i], watermark="secret")
        for i, arch in enumerate(("small_wide", "small_vgg")):
            yield independent(self.scale, arch, 8130 + i, source=("private", "panel")[i], arch=arch)
        yield independent(self.scale, "queries", 8150, source="queries", images=5000)
        # of the grown victims' public checkpoint, with which the first victim has nothing to do: fine-tunes, on rotated
        # views too, and students of its answers
        for i in range(5):
            spec = self.from_checkpoint(
                8140 + i, ("private", "panel")[i % 2], ("none", "secret", "secret", "none", "none")[i]
            )
            yield spec if i < 3 else replace(spec, kind="kin, rotated", objective="rotated")
        fields = {"objective": "taught", "base_checkpoint": self.shop.path(self.checkpoint).name, "source": "queries"}
        for i, loss in enumerate(("mse", "infonce")):
            for method in ("direct", "rotated"):
                taught = {"loss": loss, "method": method, "images": self.scale.usual, "epochs": self.scale.passes}
                yield independent(self.scale, f"student, {loss}, {method}", 8160 + i, **fields, **taught)

    def teachers(self) -> list[ModelSpec]:
        """Returns independents who teach others: nobody in the panel, and the checkpoint of no victim."""
        by_seed = {r.seed: r for r in self.panel_specs()}
        return [by_seed[seed] for seed in TEACHERS]

    def foreign_students(self) -> Iterator[ModelSpec]:
        """Yields students of those, who answer turned images as their teachers answer upright ones."""
        for i, teacher in enumerate(self.teachers()):
            taught = {"loss": ("mse", "infonce")[i % 2], "images": self.scale.usual, "epochs": self.scale.passes}
            fields = {"objective": "taught", "method": "rotated", "base_checkpoint": self.shop.path(teacher).name}
            student = independent(
                self.scale, f"student of {teacher.kind}", 8170 + i, source="queries", **fields, **taught
            )
            yield student
            if i < 2:  # somebody who takes his time
                yield replace(student, kind=f"{student.kind}, longer", epochs=2 * self.scale.passes)

    def thefts(self, victim: int) -> Iterator[ModelSpec]:
        """Yields the hard cases, and one easy one."""
        fields: dict[str, dict[str, Any]] = {
            "infonce": {"loss": "infonce"},
            "wasserstein": {"loss": "wasserstein"},
            "supcon": {"loss": "supcon"},
            "symmetrized": {"loss": "symmetrized"},
            "softnn, VGG-like": {"loss": "softnn", "arch": "small_vgg"},
            "infonce, transformer": {"loss": "infonce", "arch": "small_vit"},
            "mse, half pruned": {"loss": "mse", "laundering": ("prune:50",)},
            "infonce, 70 % pruned": {"loss": "infonce", "laundering": ("prune:70",)},
            "mse, distilled": {"loss": "mse", "laundering": ("distil:infonce:small_vgg",)},
        }
        for loss in ("mse", "infonce"):
            for longer in (1, 2):
                fields[f"{loss}, turned, {longer}"] = {"loss": loss, "method": "rotated", "longer": longer}
        fields["mse"] = {"loss": "mse"}
        for i, (kind, changes) in enumerate(fields.items()):
            yield theft(self.scale, _made(victim), kind, 1000 + i, **changes)

    def models(self, victim: int) -> Iterator[tuple[str, str, Path]]:
        """Yields role or stratum, name and file of everybody that a victim is read against, those made so far."""
        thief = self.thief(victim)
        made = [(stratum, f"{stratum} {i}", r, self.shop) for i, (stratum, r) in enumerate(self.members())]
        made += [("distilled", f"student {r.seed}", r, self.shop) for r in self.students(victim)]
        made += [("innocent", f"{r.kind} {r.seed}", r, self.shop) for r in self.innocents()]
        made += [("theft", r.kind, r, thief) for r in self.thefts(victim)]
        if victim == EMBEDDED[1]:
            from_checkpoint = self.shop.path(self.checkpoint).name
            made = [
                ("kin" if r.base_checkpoint == from_checkpoint or role == "sibling" else role, n, r, s)
                for role, n, r, s in made
            ]
        for role, name, spec, shop in made:
            path = shop.path(spec)
            if path.is_file() and (victim not in FROM_START or role != "sibling"):
                yield role, name, path

    @cached_property
    def shown(self) -> dict[str, Tensor]:
        """The images that everybody is asked about, whoever the victim: public ones, upright and turned."""
        public = self.sources["public"].images
        angles = torch.rand(PLAN.n_rotations * PLAN.n_rotated, generator=torch.Generator().manual_seed(0)) * TURN
        turned = as_uint8(rotate(as_input(public[: PLAN.n_rotated]).repeat(PLAN.n_rotations, 1, 1, 1), angles))
        return {"public": public, "rotated": turned}

    def responses(self, name: str, path: Path, watermarked: Tensor | None) -> Responses:
        """Asks an encoder about these, once, and about rotated pairs of them, if any are given."""
        encoder = weights_of(load_encoder(path).encoder)
        if path not in self.session:
            self.session[path] = {k: represent(encoder, x).numpy() for k, x in self.shown.items()}
        own = {} if watermarked is None else {"watermark": represent(encoder, watermarked).numpy()}
        return Responses(name, self.session[path] | own)

    def jobs(self, victims: list[int]) -> Iterator[tuple[int | None, ModelSpec]]:
        """Yields what is to be made, once the victims are there: of which victim, if of one, and what."""
        students = dict.fromkeys(r for victim in victims for r in self.students(victim))
        everybody = [*(r for _, r in self.members()), *students, *self.innocents()]
        yield from ((None, r) for r in everybody if not self.shop.path(r).is_file())
        for victim in victims:
            thief = self.thief(victim)
            yield from ((victim, r) for r in self.thefts(victim) if not thief.path(r).is_file())

    def make(self, job: tuple[int | None, ModelSpec]) -> None:
        """Makes one model."""
        victim, spec = job
        for teacher in (*self.teachers(), *(r for _, r in self.members())):
            if self.shop.path(teacher).name == spec.base_checkpoint:
                self.shop.make(teacher)
        (self.shop if victim is None else self.thief(victim)).make(spec)
