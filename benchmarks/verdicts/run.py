"""Train victims, panels and suspects, audit every suspect, write one row an audit.

    TURNMARK_DATA=runs/data python -m benchmarks.verdicts run --work runs/verdicts --jobs 2      # all; resumes
    ... --stage panels                                     # train victims and panels only
    ... --stage models                                     # and the suspects; only audits are left then
    ... --stage collect                                    # write the rows that are done so far
    ... --panels small-or-public --public runs/public      # needs benchmarks.prepare.public_encoders
    ... --data cifar10                                     # the same on CIFAR-10
    ... --victims 0 1                                      # only these victims' panels, suspects and audits

Victims have a claim and a panel each; test independents are audited against every claim, surrogates against their
victim's (`design.py`, `suspects.py`). A run resumes model by model and audit by audit, also in another folder:
committed rows of the same models, hyperparameters and claims are taken over. CIFAR-10, for queries of another
distribution, comes from `$TURNMARK_DATA` (`benchmarks.prepare.pack`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from attacks_for_eval.evaluation.evaluate import Cell, Evaluation, evaluate, linear_probe
from attacks_for_eval.evaluation.parallel import parallel_map
from attacks_for_eval.evaluation.spec import ModelSpec
from benchmarks.common.rows import Row
from benchmarks.verdicts import design
from benchmarks.verdicts.bench import PANELS, Bench, case_name
from benchmarks.verdicts.design import SCALES
from benchmarks.verdicts.groups import FULL_SIZE
from benchmarks.verdicts.tables import ROWS
from cli.render import progress
from ownership.io.files import write_bytes, write_json
from ownership.io.progress import Progress
from watermark_training.loaded_encoder import load_trained


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
