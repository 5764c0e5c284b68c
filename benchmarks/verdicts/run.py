"""Train victims, panels and suspects, audit every suspect, write one row an audit.

    TURNMARK_DATA=runs/data python -m benchmarks.verdicts run --work runs/verdicts --jobs 2      # all; resumes
    ... --stage panels                                     # train victims and panels only
    ... --stage models                                     # and the suspects; only audits are left then
    ... --stage collect                                    # write the rows that are done so far
    ... --panels small-or-public --public runs/public      # needs benchmarks.prepare.public_encoders
    ... --data cifar10                                     # the same on CIFAR-10
    ... --victims 0 1                                      # only these victims' panels, suspects and audits

Victims have a claim and a panel each; test independents are audited against every claim, surrogates against their
victim's (`design.py`). A run resumes model by model and audit by audit, also in another folder: committed rows of the
same models, hyperparameters and claims are taken over. CIFAR-10, for queries of another distribution, comes from
`$TURNMARK_DATA` (`benchmarks.prepare.pack`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from attacks_for_eval.claims.build import claim_with_references
from attacks_for_eval.claims.references import ReferenceConfig
from attacks_for_eval.evaluation.evaluate import Case, Cell, Evaluation, evaluate, linear_probe
from attacks_for_eval.evaluation.factory import ModelFactory
from attacks_for_eval.evaluation.parallel import parallel_map
from attacks_for_eval.evaluation.spec import Hyperparameters, ModelSpec
from benchmarks.common.rows import Row
from benchmarks.verdicts import design
from benchmarks.verdicts.design import SCALES, Scale
from benchmarks.verdicts.groups import FULL_SIZE, SMALL_OR_PUBLIC
from benchmarks.verdicts.tables import ROWS
from cli.render import progress
from ownership.claims.record import EncoderRecord, NamedEncoder
from ownership.encoders.architectures import Encoder
from ownership.io.files import write_bytes, write_json
from ownership.io.progress import Progress
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
            for i, spec in enumerate(design.surrogates(self.scale, v)):
                outputs = ("", *design.OUTPUT_TRANSFORMS, "average")[: 11 if i < 2 else 10 if i < 3 else 1]
                for output in outputs:
                    yield Cell(spec=spec, case=name, output_transform=output)
        for make in (design.rotation_invariant, design.weight_transformed):
            for v, name in names.items():
                for spec in make(self.scale, v):
                    yield Cell(spec=spec, case=name)
        yield from (cell for cell in independents if cell.spec.kind not in FIRST)

    def _independents(self, names: dict[int, str]) -> Iterator[Cell]:
        for spec in design.independents(self.scale, self.checkpoint.name):
            yield from (Cell(spec=spec, case=name) for name in names.values())

    def _small_or_public(self, names: dict[int, str]) -> Iterator[Cell]:
        # public encoders are in the panel
        yield from (cell for cell in self._independents(names) if cell.spec.objective != "file")
        for v, name in names.items():
            yield from (Cell(spec=spec, case=name) for spec in design.surrogates(self.scale, v))

    def claim_folder(self, victim: int, kind: str) -> Path:
        """Return the folder of a claim."""
        return self.work / (f"claim_{victim}" if kind == FULL_SIZE else f"claim_{victim}_{kind.replace('-', '_')}")


def case_name(victim: int, kind: str) -> str:
    """Return the name of a claim in the rows."""
    return f"victim_{victim}" if kind == FULL_SIZE else f"victim_{victim}, {kind}"


def make_panels(bench: Bench, kinds: Sequence[str], jobs: int, show: Progress) -> None:
    """Make the victims and panel members that do not exist."""
    bench.factory.make(bench.scale.checkpoint)
    first: list[Task] = [(Bench.train_victim, v) for v in bench.victims]
    members = [r for kind in kinds for v in bench.victims for _, r in bench.panel(v, kind)]
    members = [r for r in members if r.objective != "file"]
    first += [(_make_group, None, [r]) for r in dict.fromkeys(members) if r.objective != design.DISTILLED]
    _run_all(bench, first, jobs, "victims and panels", show)
    distilled: list[Task] = [
        (_make_group, None, [r]) for r in dict.fromkeys(members) if r.objective == design.DISTILLED
    ]
    _run_all(bench, distilled, jobs, "distilled panel members", show)


def make_models(bench: Bench, jobs: int, show: Progress) -> None:
    """Make the suspects that do not exist."""
    groups: dict[Any, list[ModelSpec]] = {}
    victims = {case_name(v, FULL_SIZE): v for v in bench.victims}
    for cell in bench.cells():
        if cell.spec.objective == "file":
            continue
        of = victims[cell.case] if cell.spec.role == "surrogate" else None
        groups.setdefault((cell.spec.base, of), []).append(cell.spec)
    factories = {v: bench.surrogate_factory(v) for v in bench.victims} | {None: bench.factory}
    tasks: list[Task] = [
        (_make_group, of, specs)
        for (_, of), specs in groups.items()
        if not all(factories[of].path(r).is_file() for r in specs)
    ]
    _run_all(bench, tasks, jobs, "suspects", show)


def _make_group(bench: Bench, victim: int | None, specs: Sequence[ModelSpec]) -> None:
    factory = bench.factory if victim is None else bench.surrogate_factory(victim)
    for spec in dict.fromkeys(specs):
        factory.make(spec)


Task = tuple[Any, ...]
"""A function and its arguments, after the bench."""


def _run_all(bench: Bench, tasks: Sequence[Task], jobs: int, what: str, show: Progress) -> None:
    for i, _ in enumerate(parallel_map(_do, bench, tasks, folder=bench.work, jobs=jobs)):
        show(what, i + 1, len(tasks))


def _do(bench: Bench, task: Task) -> None:
    function, *arguments = task
    function(bench, *arguments)


def audit_all(bench: Bench, kinds: Sequence[str], jobs: int, show: Progress) -> None:
    """Build the claims, audit every model and write the rows."""
    for kind in kinds:
        builds = [(Bench.build, v, kind) for v in bench.victims]
        _run_all(bench, builds, jobs, f"claims, {kind} panels", show)
        evaluation, cells = bench.evaluation(), list(bench.cells(kind))
        _resume(evaluation, cells)
        evaluate(evaluation, cells, jobs=jobs, progress=show)
    collect(bench)


def _resume(evaluation: Evaluation, cells: Sequence[Cell]) -> None:
    """Take over committed rows of the same models, hyperparameters and claims, made in another folder."""
    done = {row["key"]: row for row in ROWS.load()}
    for path in map(evaluation.row_path, cells):
        if not path.is_file() and path.stem in done:
            write_json(path, done[path.stem])


def collect(bench: Bench) -> None:
    """Write the rows that are done in place of older ones of the same audits; print how many."""
    evaluation = bench.evaluation()
    built = [kind for kind in PANELS if all(bench.claim_folder(v, kind).is_dir() for v in bench.victims)]
    cells = [c for kind in built for c in bench.cells(kind)]
    learn, test = bench.sources["probe-learn"], bench.sources["probe-test"]
    probed = {
        v: linear_probe(load_trained(bench.victim_folder(v)).encoder, learn, test)["utility"] for v in bench.victims
    }
    utility = {case_name(v, kind): value for v, value in probed.items() for kind in PANELS}
    strata = {case_name(v, k): sorted({x for x, _ in bench.panel(v, k)}) for v in bench.victims for k in PANELS}
    paths = [path for cell in cells if (path := evaluation.row_path(cell)).is_file()]
    rows = [json.loads(path.read_text()) for path in paths]
    for row in rows:
        row |= {"data": bench.scale.data, "victim_utility": utility[row["case"]], "strata": strata[row["case"]]}
    ROWS.replace(rows, _audit_of)
    print(f"{len(rows)} of {len(cells)} audits of {bench.scale.data} are in {ROWS.path.name}", file=sys.stderr)


def _audit_of(row: Row) -> str:
    """Return the suspect and claim of a row; rows of one audit have it in common, whatever the claim was made of."""
    return json.dumps([row["data"], row["case"], row["output_transform"], *(row[f.name] for f in fields(ModelSpec))])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--stage", choices=("panels", "models", "rows", "collect", "all"), default="all")
    parser.add_argument("--data", choices=SCALES, default="fashion-mnist")
    parser.add_argument("--victims", nargs="+", type=int, default=[], help="all victims if not given")
    parser.add_argument("--panels", choices=("all", *PANELS), default=FULL_SIZE)
    parser.add_argument("--public", type=Path, default=None, help="folder of public encoders (ONNX)")
    parser.add_argument("--work", type=Path, default=Path("runs/verdicts"))
    parser.add_argument("--jobs", type=int, default=1)


def run(arguments: argparse.Namespace) -> None:
    """Run the stages that are asked for."""
    bench = Bench(SCALES[arguments.data], arguments.work, arguments.victims)
    for name in design.PUBLIC_ENCODERS:
        if arguments.public is not None and not (kept := bench.factory.folder / name).is_file():
            write_bytes(kept, (arguments.public / name).read_bytes())
    kinds = list(PANELS) if arguments.panels == "all" else [arguments.panels]
    with progress() as show:
        if arguments.stage in ("panels", "models", "all"):
            make_panels(bench, kinds, arguments.jobs, show)
        if arguments.stage in ("models", "all"):
            make_models(bench, arguments.jobs, show)
        if arguments.stage in ("rows", "all"):
            audit_all(bench, kinds, arguments.jobs, show)
    if arguments.stage == "collect":
        collect(bench)
