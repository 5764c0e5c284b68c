"""The victims, models, claims and audits of the verdict benchmark, in the folder of one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from attacks_for_eval.claims.build import claim_with_references
from attacks_for_eval.claims.references import ReferenceConfig
from attacks_for_eval.evaluation.evaluate import Case, Cell, Evaluation
from attacks_for_eval.evaluation.factory import ModelFactory
from attacks_for_eval.evaluation.spec import Hyperparameters, ModelSpec
from benchmarks.verdicts import design, suspects
from benchmarks.verdicts.design import Scale
from benchmarks.verdicts.groups import FULL_SIZE, SMALL_OR_PUBLIC
from ownership.claims.record import EncoderRecord, NamedEncoder
from ownership.encoders.architectures import Encoder
from ownership.plan import Plan
from ownership.suspects.suspect import load_encoder
from ownership.watermark import secret_key
from watermark_training.data import Data, load_data, resize
from watermark_training.loaded_encoder import load_trained
from watermark_training.train_folder import train_to

SETTINGS = Hyperparameters()
PLAN = Plan(n_public=1000, n_watermark=250, n_private=250)

FIRST = ("distilled from the public checkpoint", "the attacker's queries")
"""Independents audited first: those likeliest to be false positives, and those that usefulness is measured against."""

PANELS = {FULL_SIZE: design.panel, SMALL_OR_PUBLIC: design.small_or_public}
"""Kind of panel -> its members."""


def sources(scale: Scale) -> dict[str, Data]:
    """Return every part of the data by name."""
    splits = {split: load_data(f"{scale.data}:{split}") for split in ("train", "test")}
    out = {}
    for name, (split, start, stop) in scale.slices.items():
        data = splits[split]
        labels = None if data.labels is None else data.labels[start:stop]
        out[name] = Data(name=f"{scale.data}:{split}[{start}:{stop}]", images=data.images[start:stop], labels=labels)
    foreign = load_data(scale.foreign)
    images, name = foreign.images, scale.foreign
    if splits["train"].images.shape[1] == 1:
        images, name = images.float().mean(1, keepdim=True).round().to(torch.uint8), f"{name}, grey"
    out["foreign"] = Data(name=name, images=resize(images, scale.side), labels=foreign.labels)
    return out


class Bench:
    """The folder of one run, and the victims, models and claims in it."""

    def __init__(self, scale: Scale, work: Path, victims: Sequence[int] = ()) -> None:
        self.scale, self.work, self.sources = scale, work / scale.data, sources(scale)
        self.victims = [v for v in scale.indices if not victims or v in victims]
        self.factory = ModelFactory(folder=self.work / "models", sources=self.sources, settings=SETTINGS)

    @property
    def checkpoint(self) -> Path:
        """The public checkpoint's file."""
        return self.factory.path(self.scale.checkpoint)

    def victim_folder(self, victim: int) -> Path:
        """Return the train folder of a victim."""
        return self.work / f"victim_{victim}"

    def train_victim(self, victim: int) -> None:
        """Train a victim, with a secret key that follows from its number."""
        start, epochs = None, self.scale.epochs
        if victim in self.scale.fine_tuned:
            checkpoint = load_encoder(self.checkpoint).encoder
            assert isinstance(checkpoint, Encoder)
            start, epochs = checkpoint, self.scale.fine_tune_epochs
        spec = design.independent(self.scale, "victim", 100 + victim, watermark="secret")
        config = SETTINGS.training(spec, epochs=epochs)
        key = secret_key(torch.Generator().manual_seed(100 + victim))
        train_to(self.victim_folder(victim), self.sources[f"private_{victim}"], config, key=key, start=start)

    def surrogate_factory(self, victim: int) -> ModelFactory:
        """Return the factory of a victim's surrogates."""
        loaded = load_trained(self.victim_folder(victim))
        assert isinstance(loaded.encoder, Encoder)
        return replace(self.factory, victim=(loaded.encoder, loaded.sha256))

    def panel(self, victim: int, kind: str) -> list[tuple[str, ModelSpec]]:
        """Return a panel of a kind in PANELS: the stratum and spec of each member."""
        members = list(PANELS[kind](self.scale, victim, self.checkpoint.name))
        if kind == FULL_SIZE:
            members += design.distilled_controls(self.scale, members, lambda r: self.factory.path(r).name)
        return members

    def build(self, victim: int, kind: str) -> None:
        """Build a victim's claim with a panel of a kind, unless it exists."""
        folder = self.claim_folder(victim, kind)
        if (folder / "claim.json").is_file():
            return
        private, public = self.sources[f"private_{victim}"], self.sources[f"public_{victim}"]
        members: list[NamedEncoder] = []
        for i, (stratum, spec) in enumerate(self.panel(victim, kind)):
            suspect = load_encoder(self.factory.make(spec))
            member = EncoderRecord(
                name=f"{stratum}_{i}",
                kind=stratum,
                sha256=suspect.sha256,
                architecture=suspect.architecture,
                watermark=spec.watermark,
                data="" if spec.objective == "file" else self.sources[spec.source].name,
                trained_on_private=spec.source.startswith("private"),
                teacher=load_encoder(self.factory.folder / spec.base_checkpoint).sha256
                if stratum == "distilled"
                else None,
            )
            members.append(NamedEncoder(member, suspect.encoder))
        owner = load_trained(self.victim_folder(victim))
        plan = replace(PLAN, seed=victim)
        references = ReferenceConfig(epochs=40, seed=victim)
        claim_with_references(owner, private, public, members, plan, references=references).save(folder)

    def evaluation(self) -> Evaluation:
        """Return the cases, images and hyperparameters that cells are run with."""
        cases = {}
        for kind in PANELS:
            for v in self.victims:
                name = case_name(v, kind)
                cases[name] = Case(name=name, victim=self.victim_folder(v), claim=self.claim_folder(v, kind))
        return Evaluation(
            out=self.work,
            cases=cases,
            sources=self.sources,
            settings=SETTINGS,
            labeled=(self.sources["probe-learn"], self.sources["probe-test"]),
        )

    def cells(self, kind: str = FULL_SIZE) -> Iterator[Cell]:
        """Yield every audit against claims with a panel of a kind, the most informative first."""
        names = {v: case_name(v, kind) for v in self.victims}
        if kind == SMALL_OR_PUBLIC:
            yield from self._small_or_public(names)
            return
        independents = list(self._independents(names))
        yield from (cell for cell in independents if cell.spec.kind in FIRST)
        for v, name in names.items():
            for i, spec in enumerate(suspects.surrogates(self.scale, v)):
                outputs = ("", *suspects.OUTPUT_TRANSFORMS, "average")[: 11 if i < 2 else 10 if i < 3 else 1]
                for output in outputs:
                    yield Cell(spec=spec, case=name, output_transform=output)
        for make in (suspects.rotation_invariant, suspects.weight_transformed):
            for v, name in names.items():
                for spec in make(self.scale, v):
                    yield Cell(spec=spec, case=name)
        yield from (cell for cell in independents if cell.spec.kind not in FIRST)

    def _independents(self, names: dict[int, str]) -> Iterator[Cell]:
        for spec in suspects.independents(self.scale, self.checkpoint.name):
            yield from (Cell(spec=spec, case=name) for name in names.values())

    def _small_or_public(self, names: dict[int, str]) -> Iterator[Cell]:
        # public encoders are in the panel
        yield from (cell for cell in self._independents(names) if cell.spec.objective != "file")
        for v, name in names.items():
            yield from (Cell(spec=spec, case=name) for spec in suspects.surrogates(self.scale, v))

    def claim_folder(self, victim: int, kind: str) -> Path:
        """Return the folder of a claim."""
        return self.work / (f"claim_{victim}" if kind == FULL_SIZE else f"claim_{victim}_{kind.replace('-', '_')}")


def case_name(victim: int, kind: str) -> str:
    """Return the name of a claim in the rows."""
    return f"victim_{victim}" if kind == FULL_SIZE else f"victim_{victim}, {kind}"
