"""The designs are those of the committed rows: every audit of a row is one that a run would make."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

from attacks_for_eval.evaluation.evaluate import Cell
from attacks_for_eval.evaluation.spec import ModelSpec
from benchmarks.common.rows import Row
from benchmarks.paper.design import tables as published
from benchmarks.paper.tables import SCALE, done
from benchmarks.verdicts import bench as verdicts
from benchmarks.verdicts.design import SCALES
from benchmarks.verdicts.groups import FULL_SIZE, SMALL_OR_PUBLIC, panel_of
from benchmarks.verdicts.tables import FINE_TUNED, ROWS

COLUMNS = [f.name for f in fields(ModelSpec) if f.name not in ("base_checkpoint", "weight_transforms")]
LATER = ("distilled from the public checkpoint", "fine-tune of it on rotated views")
"""Kinds that came after the audits with panels of small and public encoders."""


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> verdicts.Bench:
    class AnySource(dict[str, object]):
        def __contains__(self, _: object) -> bool:
            return False

    monkeypatch.setattr(verdicts, "sources", lambda scale: AnySource())
    return verdicts.Bench(SCALES[request.param], tmp_path)


def of_cell(cell: Cell) -> tuple[object, ...]:
    spec = cell.spec
    starts = bool(spec.base_checkpoint) and spec.objective != "file"
    transforms = "+".join(spec.weight_transforms)
    return cell.case, cell.output_transform, starts, transforms, *(getattr(spec, name) for name in COLUMNS)


def of_row(row: Row) -> tuple[object, ...]:
    chosen = ("case", "output_transform", "base_checkpoint", "weight_transforms", *COLUMNS)
    return tuple(row[name] for name in chosen)


@pytest.mark.parametrize(
    ("bench", "panel"),
    [("fashion-mnist", FULL_SIZE), ("fashion-mnist", SMALL_OR_PUBLIC), ("cifar10", FULL_SIZE)],
    indirect=["bench"],
)
def test_rows_are_the_audits_of_the_design(bench: verdicts.Bench, panel: str) -> None:
    data = bench.scale.data
    rows = [row for row in ROWS.load() if (row["data"], panel_of(row)) == (data, panel)]
    cells = Counter(of_cell(cell) for cell in bench.cells(panel))
    if panel == SMALL_OR_PUBLIC:
        cells = Counter({key: n for key, n in cells.items() if not set(LATER) & set(map(str, key))})
    assert Counter(map(of_row, rows)) == cells


@pytest.mark.parametrize("bench", SCALES, indirect=True)
def test_strata_of_the_panels_are_those_of_the_rows(bench: verdicts.Bench) -> None:
    assert bench.scale.fine_tuned == FINE_TUNED[bench.scale.data]
    for row in ROWS.load():
        if row["data"] == bench.scale.data and panel_of(row) == FULL_SIZE:
            victim = int(row["case"].removeprefix("victim_"))
            counts = Counter(stratum for stratum, _ in bench.panel(victim, FULL_SIZE))
            assert sorted(counts) == row["strata"]
            assert set(counts.values()) == {16}


def test_cells_of_the_paper_are_those_of_the_rows() -> None:
    assert {cell.of(SCALE) for table in published(SCALE).values() for _, _, cell in table.rows} == set(done())
