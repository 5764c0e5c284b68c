"""Train the victims, make every suspect and test it with the keys; write one row a test.

    TURNMARK_DATA=runs/data python -m benchmarks.key_verdicts run --jobs 2        # all; resumes
    ... --data cifar10 --public runs/public                                       # needs benchmarks.prepare
    ... --victims 0 1                                                             # only these victims
    ... --minutes 60                                                              # begin no model after an hour

Rows of the same configuration are never measured again, on another machine either. A run continues model by model.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from attacks_for_eval.evaluation.parallel import parallel_map
from benchmarks.common.rows import Row, RowStore
from benchmarks.key_verdicts.bench import Bench
from benchmarks.key_verdicts.design import Task
from benchmarks.verdicts.design import PUBLIC_ENCODERS, SCALES
from cli.render import progress
from ownership.io.files import write_bytes
from ownership.io.progress import Progress

ROWS = RowStore("key_verdicts", compressed=True)
KEPT_EVERY = 10
"""Models after which the rows are written."""

Work = tuple[Task, list[tuple[int, str]], float]
"""A task, the rows that it has to give, and the time from which on it is skipped."""


def make_victims(bench: Bench, jobs: int, show: Progress) -> None:
    """Train the victims and their unwatermarked twins, and write their rows."""
    bench.factory.make(bench.scale.checkpoint)
    trainings = [(v, watermarked) for v in bench.victims for watermarked in (True, False)]
    for i, _ in enumerate(parallel_map(_train, bench, trainings, folder=bench.work, jobs=jobs)):
        show("victims", i + 1, len(trainings))
    show("testing the victims", 0, 1)
    ROWS.replace(list(bench.victim_rows(_done())), _same)


def measure_all(bench: Bench, jobs: int, until: float, show: Progress) -> None:
    """Measure what has no row."""
    done = _done()
    tasks: list[Work] = [(task, wanted, until) for task in bench.tasks() if (wanted := bench.missing(task, done))]
    rows: list[Row] = []
    for i, found in enumerate(parallel_map(_measure, bench, tasks, folder=bench.work, jobs=jobs)):
        rows += found
        show("suspects", i + 1, len(tasks))
        if i % KEPT_EVERY == KEPT_EVERY - 1 or i == len(tasks) - 1:
            ROWS.replace(rows, _same)
            rows = []


def _done() -> frozenset[str]:
    return frozenset(row["key"] for row in ROWS.load())


def _same(row: Row) -> str:
    return str(row["key"])


def _train(bench: Bench, training: tuple[int, bool]) -> None:
    bench.train_victim(*training)


def _measure(bench: Bench, work: Work) -> list[Row]:
    task, wanted, until = work
    return [] if time.time() > until else bench.measure(task, wanted)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.add_argument("--data", choices=SCALES, default="fashion-mnist")
    parser.add_argument("--victims", nargs="+", type=int, default=[], help="all victims if not given")
    parser.add_argument("--public", type=Path, default=None, help="folder of public encoders (ONNX)")
    parser.add_argument("--work", type=Path, default=Path("runs/key_verdicts"))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no further model after these")
    parser.add_argument("--jobs", type=int, default=1)


def run(arguments: argparse.Namespace) -> None:
    """Make the models and measure them."""
    until = time.time() + 60 * arguments.minutes
    bench = Bench(SCALES[arguments.data], arguments.work, arguments.victims)
    for name in PUBLIC_ENCODERS if arguments.public is not None else ():
        if not (kept := bench.factory.folder / name).is_file():
            write_bytes(kept, (arguments.public / name).read_bytes())
    with progress() as show:
        make_victims(bench, arguments.jobs, show)
        measure_all(bench, arguments.jobs, until, show)
