"""The standing benchmark of verdicts: false accusations of independents, thefts found, with intervals.

    TURNMARK_DATA=runs/data python benchmarks/verdicts/run.py --work runs/verdicts --jobs 2    # all; resumes anywhere
    python benchmarks/verdicts/run.py --stage panels ...     # train victims and panels only
    python benchmarks/verdicts/run.py --stage models ...     # and the suspects; rows need nothing but audits then
    python benchmarks/verdicts/run.py --stage collect ...    # write the rows that are done so far
    python benchmarks/verdicts/run.py --print                # the tables of docs/results.md from committed rows, and
                                                             # docs/price.png, docs/roc.png
    ... --panels affordable --public runs/public             # small and public encoders (benchmarks/public_encoders.py)
    ... --data cifar10                                       # the same on CIFAR-10
    ... --victims 0 1                                        # these victims' panels, suspects, audits or tables only

Five victims, each with its own claim and panel; test independents, each audited against every claim; test surrogates
(`design.py`). Rows are committed as `benchmarks/results/verdicts.jsonl`, models never. CIFAR-10 for queries of another
distribution comes from `$TURNMARK_DATA` (see `benchmarks/pack.py`).
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

sys.path.insert(0, str(Path(__file__).parent))
import design
from design import SCALES, Scale

from attacks_for_eval.claims.build import claim_with_references
from attacks_for_eval.evaluation.evaluate import Case, Cell, Evaluation, evaluate, probe
from attacks_for_eval.evaluation.parallel import spread
from attacks_for_eval.evaluation.rates import draw_roc
from attacks_for_eval.evaluation.spec import Hyperparameters, ModelFactory, ModelSpec
from cli.render import progress
from ownership.claims.record import EncoderRecord
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike
from ownership.io.files import write_bytes, write_json
from ownership.io.progress import Progress
from ownership.plan import Plan
from ownership.suspects.suspect import load_encoder
from ownership.watermark import secret_key
from watermark_training.data import Data, load_data, resize
from watermark_training.train_folder import load_trained, train_to

RESULTS = Path(__file__).parents[1] / "results" / "verdicts.jsonl"
SETTINGS = Hyperparameters()
PLAN = Plan(n_public=1000, n_watermark=250, n_private=250)


FIRST = ("student of the public checkpoint", "the thief's queries")
"""Independents audited first: the guiltiest looking ones, and those beside which thefts are said to be useful."""

PANELS = {"whole": design.panel, "affordable": design.affordable}
"""The victim's like, trained for the purpose; small encoders and public ones."""


def sources(scale: Scale) -> dict[str, Data]:
    """Returns every part of the data by name."""
    whole = {split: load_data(f"{scale.data}:{split}") for split in ("train", "test")}
    out = {}
    for name, (split, start, stop) in scale.slices.items():
        data = whole[split]
        labels = None if data.labels is None else data.labels[start:stop]
        out[name] = Data(name=f"{scale.data}:{split}[{start}:{stop}]", images=data.images[start:stop], labels=labels)
    foreign = load_data(scale.foreign)
    images, name = foreign.images, scale.foreign
    if whole["train"].images.shape[1] == 1:
        images, name = images.float().mean(1, keepdim=True).round().to(torch.uint8), f"{name}, grey"
    out["foreign"] = Data(name=name, images=resize(images, scale.side), labels=foreign.labels)
    return out


class Bench:
    """The folder of one run and how to reach everything in it."""

    def __init__(self, scale: Scale, work: Path, victims: Sequence[int] = ()) -> None:
        self.scale, self.work, self.sources = scale, work / scale.data, sources(scale)
        self.victims = [v for v in scale.indices if not victims or v in victims]
        self.panel_specs = ModelFactory(folder=self.work / "models", sources=self.sources, settings=SETTINGS)

    @property
    def checkpoint(self) -> Path:
        """The public checkpoint's file; made first."""
        return self.panel_specs.path(self.scale.checkpoint)

    def victim_folder(self, victim: int) -> Path:
        """Where a victim lies."""
        return self.work / f"victim_{victim}"

    def train_victim(self, victim: int) -> None:
        """Trains a victim, with a secret key that repeats."""
        start, epochs = None, self.scale.epochs
        if victim in self.scale.grown:
            start, epochs = load_encoder(self.checkpoint).encoder, self.scale.fine_tune_epochs
            assert isinstance(start, Encoder)
        spec = design.independent(self.scale, "victim", 100 + victim, watermark="secret")
        config = SETTINGS.training(spec, epochs=epochs)
        key = secret_key(torch.Generator().manual_seed(100 + victim))
        train_to(self.victim_folder(victim), self.sources[f"private_{victim}"], config, key=key, start=start)

    def thief(self, victim: int) -> ModelFactory:
        """Where a victim's surrogates are made."""
        loaded = load_trained(self.victim_folder(victim))
        assert isinstance(loaded.encoder, Encoder)
        return replace(self.panel_specs, victim=(loaded.encoder, loaded.sha256))

    def panel(self, victim: int, kind: str) -> list[tuple[str, ModelSpec]]:
        """Returns a panel of a kind in PANELS: the stratum and recipe of each member."""
        members = list(PANELS[kind](self.scale, victim, self.checkpoint.name))
        if kind == "whole":
            members += design.students(self.scale, members, lambda r: self.panel_specs.path(r).name)
        return members

    def build(self, victim: int, kind: str) -> None:
        """Builds a victim's claim with a panel of a kind, unless it is there."""
        folder = self.claim_folder(victim, kind)
        if (folder / "claim.json").is_file():
            return
        private, public = self.sources[f"private_{victim}"], self.sources[f"public_{victim}"]
        members: list[tuple[EncoderRecord, EncoderLike]] = []
        for i, (stratum, spec) in enumerate(self.panel(victim, kind)):
            suspect = load_encoder(self.panel_specs.make(spec))
            member = EncoderRecord(
                name=f"{stratum}_{i}",
                kind=stratum,
                sha256=suspect.sha256,
                architecture=suspect.architecture,
                watermark=spec.watermark,
                data="" if spec.objective == "file" else self.sources[spec.source].name,
                trained_on_private=spec.source.startswith("private"),
                teacher=load_encoder(self.panel_specs.folder / spec.base_checkpoint).sha256
                if stratum == "distilled"
                else "",
            )
            members.append((member, suspect.encoder))
        owner = load_trained(self.victim_folder(victim))
        plan = replace(PLAN, seed=victim)
        claim_with_references(owner, private, public, members, plan, reference_epochs=40, seed=victim).save(folder)

    def evaluation(self) -> Evaluation:
        """Returns what the cells are run with."""
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
            labelled=(self.sources["probe-learn"], self.sources["probe-test"]),
        )

    def cells(self, kind: str = "whole") -> Iterator[Cell]:
        """Yields every audit against claims with a panel of a kind; what matters most first."""
        names = {v: case_name(v, kind) for v in self.victims}
        if kind == "affordable":
            yield from self._affordable(names)
            return
        independents = list(self._independents(names))
        yield from (cell for cell in independents if cell.spec.kind in FIRST)
        for v, name in names.items():
            for i, spec in enumerate(design.surrogates(self.scale, v)):
                outputs = ("", *design.OUTPUTS, "average")[: 11 if i < 2 else 10 if i < 3 else 1]
                for output in outputs:
                    yield Cell(spec=spec, case=name, output=output)
        for make in (design.evaders, design.laundered):
            for v, name in names.items():
                for spec in make(self.scale, v):
                    yield Cell(spec=spec, case=name)
        yield from (cell for cell in independents if cell.spec.kind not in FIRST)

    def _independents(self, names: dict[int, str]) -> Iterator[Cell]:
        for spec in design.independents(self.scale, self.checkpoint.name):
            yield from (Cell(spec=spec, case=name) for name in names.values())

    def _affordable(self, names: dict[int, str]) -> Iterator[Cell]:
        # public encoders are in the panel
        yield from (cell for cell in self._independents(names) if cell.spec.objective != "file")
        for v, name in names.items():
            yield from (Cell(spec=spec, case=name) for spec in design.surrogates(self.scale, v))

    def claim_folder(self, victim: int, kind: str) -> Path:
        """Where a claim lies."""
        return self.work / (f"claim_{victim}" if kind == "whole" else f"claim_{victim}_{kind.replace(' ', '_')}")


def case_name(victim: int, kind: str) -> str:
    """Returns what the rows of a claim are called."""
    return f"victim_{victim}" if kind == "whole" else f"victim_{victim}, {kind}"


def make_panels(bench: Bench, kinds: Sequence[str], jobs: int, show: Progress) -> None:
    """Makes victims and panel members; what is there is kept."""
    bench.panel_specs.make(bench.scale.checkpoint)
    first: list[Task] = [(Bench.train_victim, v) for v in bench.victims]
    members = [r for kind in kinds for v in bench.victims for _, r in bench.panel(v, kind)]
    members = [r for r in members if r.objective != "file"]
    first += [(_make_group, None, [r]) for r in dict.fromkeys(members) if r.objective != "taught"]
    _run(bench, first, jobs, "victims and panels", show)
    taught: list[Task] = [(_make_group, None, [r]) for r in dict.fromkeys(members) if r.objective == "taught"]
    _run(bench, taught, jobs, "students in panels", show)


def make_models(bench: Bench, jobs: int, show: Progress) -> None:
    """Makes every suspect; what is there is kept."""
    groups: dict[Any, list[ModelSpec]] = {}
    victims = {case_name(v, "whole"): v for v in bench.victims}
    for cell in bench.cells():
        if cell.spec.objective == "file":
            continue
        of = victims[cell.case] if cell.spec.role == "surrogate" else None
        groups.setdefault((cell.spec.base, of), []).append(cell.spec)
    workshops = {v: bench.thief(v) for v in bench.victims} | {None: bench.panel_specs}
    tasks: list[Task] = [
        (_make_group, of, specs)
        for (_, of), specs in groups.items()
        if not all(workshops[of].path(r).is_file() for r in specs)
    ]
    _run(bench, tasks, jobs, "suspects", show)


def _make_group(bench: Bench, victim: int | None, specs: Sequence[ModelSpec]) -> None:
    factory = bench.panel_specs if victim is None else bench.thief(victim)
    for spec in dict.fromkeys(specs):
        factory.make(spec)


Task = tuple[Any, ...]
"""A function and its arguments, after the bench."""


def _run(bench: Bench, tasks: Sequence[Task], jobs: int, what: str, show: Progress) -> None:
    for i, _ in enumerate(spread(_do, bench, tasks, folder=bench.work, jobs=jobs)):
        show(what, i + 1, len(tasks))


def _do(bench: Bench, task: Task) -> None:
    function, *arguments = task
    function(bench, *arguments)


def audit_all(bench: Bench, kinds: Sequence[str], jobs: int, show: Progress) -> None:
    """Builds the claims, audits every model and writes the rows to be committed."""
    for kind in kinds:
        builds = [(Bench.build, v, kind) for v in bench.victims]
        _run(bench, builds, jobs, f"claims, {kind} panels", show)
        evaluation, cells = bench.evaluation(), list(bench.cells(kind))
        _resume(evaluation, cells)
        evaluate(evaluation, cells, jobs=jobs, progress=show)
    collect(bench)


def _resume(evaluation: Evaluation, cells: Sequence[Cell]) -> None:
    """Takes from the committed rows those of the very same models, settings and claims: the folder may be another's."""
    done = {row["key"]: row for row in stored()}
    for path in map(evaluation.row_path, cells):
        if not path.is_file() and path.stem in done:
            write_json(path, done[path.stem])


def collect(bench: Bench) -> None:
    """Writes the rows that are done, to be committed, in place of the same audits' old ones; says how many are not."""
    evaluation = bench.evaluation()
    built = [kind for kind in PANELS if all(bench.claim_folder(v, kind).is_dir() for v in bench.victims)]
    cells = [c for kind in built for c in bench.cells(kind)]
    learn, test = bench.sources["probe-learn"], bench.sources["probe-test"]
    probed = {v: probe(load_trained(bench.victim_folder(v)).encoder, learn, test)["utility"] for v in bench.victims}
    utility = {case_name(v, kind): value for v, value in probed.items() for kind in PANELS}
    strata = {case_name(v, k): sorted({x for x, _ in bench.panel(v, k)}) for v in bench.victims for k in PANELS}
    paths = [path for cell in cells if (path := evaluation.row_path(cell)).is_file()]
    rows = [json.loads(path.read_text()) for path in paths]
    for row in rows:
        row |= {"data": bench.scale.data, "victim_utility": utility[row["case"]], "strata": strata[row["case"]]}
    again = {_audit_of(row) for row in rows}
    others = [row for row in stored() if _audit_of(row) not in again]
    RESULTS.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in (*others, *rows)))
    print(f"{len(rows)} of {len(cells)} audits of {bench.scale.data} are in {RESULTS.name}", file=sys.stderr)


def _audit_of(row: dict[str, Any]) -> str:
    """Who was audited against which claim, whatever that was made of."""
    return json.dumps([row["data"], row["case"], row["output"], *(row[f.name] for f in fields(ModelSpec))])


def stored() -> list[dict[str, Any]]:
    """Returns the committed rows."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("panels", "models", "rows", "collect", "all"), default="all")
    parser.add_argument("--data", choices=SCALES, default="fashion-mnist")
    parser.add_argument("--victims", nargs="+", type=int, default=[], help="all, if none is named")
    parser.add_argument("--panels", choices=("all", *PANELS), default="whole")
    parser.add_argument("--public", type=Path, default=None, help="folder of ONNX encoders that nobody here trained")
    parser.add_argument("--work", type=Path, default=Path("runs/verdicts"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--print", action="store_true", dest="show")
    arguments = parser.parse_args()
    if arguments.show:
        from tables import draw_prices, panel_of, print_combinations, print_tables, victim_of

        rows = [r for r in stored() if not arguments.victims or victim_of(r) in arguments.victims]
        print_tables(rows)
        print_combinations(rows)
        docs = Path(__file__).parents[2] / "docs"
        draw_prices(rows, docs / "price.png")
        fashion = [r for r in rows if (r["data"], panel_of(r)) == (design.FASHION.data, "whole")]
        write_bytes(docs / "roc.png", draw_roc(fashion))
        return
    bench = Bench(SCALES[arguments.data], arguments.work, arguments.victims)
    for name in design.PUBLIC_ENCODERS:
        if arguments.public is not None and not (kept := bench.panel_specs.folder / name).is_file():
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


if __name__ == "__main__":
    import run  # under the name that other processes find its classes by

    run.main()
