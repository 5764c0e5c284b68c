"""Measure the cells of the paper's tables that have no row yet.

    TURNMARK_DATA=runs/data python -m benchmarks.paper run --scale cpu --work runs/paper     # all; resumes
    ... --tables 1 2                                                                         # some tables
    ... --part 1/2                                                                           # and 2/2 beside it

Data sets come from `$TURNMARK_DATA` (`benchmarks.prepare.pack`). Scale "cpu" is a victim of 77 k parameters on 20,000
CIFAR-10 images with the paper's public 180-degree watermark; "paper" is ResNet-18 on CIFAR-10 (a GPU); "original" the
same with SVHN and STL-10 in place of the substitutes.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from benchmarks.common.machine import versions
from benchmarks.paper.bench import Bench
from benchmarks.paper.cells import SCALES, Cell
from benchmarks.paper.design import tables
from benchmarks.paper.measure import MEASURES
from benchmarks.paper.tables import ROWS, done


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--scale", choices=tuple(SCALES), default="cpu")
    parser.add_argument("--tables", nargs="+", default=None, help="all tables if not given")
    parser.add_argument("--work", type=Path, default=Path("runs/paper"))
    parser.add_argument("--part", default="1/1", help="I/N: every N-th cell, from the I-th")
    parser.add_argument("--device", default="auto")


def run(arguments: argparse.Namespace) -> None:
    """Measure the cells, one row each."""
    scale, (mine, of) = arguments.scale, map(int, arguments.part.split("/"))
    cells: dict[tuple[str, str], Cell] = {}
    for name, table in tables(scale).items():
        if arguments.tables is None or name in arguments.tables:
            cells |= {cell.of(scale): cell for _, _, cell in table.rows}
    bench = Bench(SCALES[scale], arguments.work / scale, arguments.device)
    for i, (identity, cell) in enumerate(cells.items()):
        if i % of != mine - 1 or identity in done():
            continue
        measured = bench.measure(MEASURES[cell.method], cell)
        row = {"key": cell.key(scale), "scale": scale, "cell": asdict(cell), "measured": measured}
        ROWS.append({**row, "versions": versions()})
        print(f"{i + 1} of {len(cells)}: {asdict(cell)}: {measured}", flush=True)
