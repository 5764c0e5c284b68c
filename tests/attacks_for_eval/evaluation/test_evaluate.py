"""Evaluation: models of every kind are made, audited from file, counted; runs resume; a cluster gives the same rows."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from support.job import Job

from attacks_for_eval.evaluation.evaluate import Case, Cell, Evaluation, Row, evaluate
from attacks_for_eval.evaluation.factory import TRANSFORMED, ModelFactory, transform_outputs
from attacks_for_eval.evaluation.grid import Grid, existing_models, joblib_backend
from attacks_for_eval.evaluation.rates import Rate, bootstrap_over, rates, roc, tpr_at_fpr, write_summary
from attacks_for_eval.evaluation.spec import WEIGHT_TRANSFORMS, Hyperparameters, ModelSpec, Objective
from attacks_for_eval.evasion.apply import EVASIONS
from ownership.encoders.architectures import ARCHITECTURES, Encoder
from ownership.encoders.images import represent
from ownership.errors import TrainingError
from ownership.io.canonical import sha256
from ownership.suspects.suspect import load_encoder
from watermark_training.data import Data
from watermark_training.loaded_encoder import load_trained

QUICK = Hyperparameters(batch_size=64, extraction_batch_size=64, flip=False, min_crop=0.3)
GRID = Grid(
    losses=("mse",),
    archs=("tiny",),
    queries=(400,),
    weight_transforms=("prune:50",),
    output_transforms=("permute",),
    independents=("simclr", "simclr:secret"),
    images=200,
    epochs=25,
)


def evaluation_in(out: Path, job: Job, digits: Data) -> Evaluation:
    half = Data(name="half", images=digits.images[1100:], labels=digits.labels)
    return Evaluation(
        out=out,
        cases={"claim": Case(name="claim", victim=job.folder / "models/victim", claim=job.folder / "claim")},
        sources={"queries": half, "others": half},
        settings=QUICK,
        labeled=(digits, replace(digits, images=digits.images[:300], labels=digits.labels[:300])),  # type: ignore[index]
    )


@pytest.fixture
def evaluation(job: Job, digits: Data, tmp_path: Path) -> Evaluation:
    return evaluation_in(tmp_path / "evaluation", job, digits)


@dataclass(frozen=True)
class GridRun:
    """A grid that was run once."""

    evaluation: Evaluation
    cells: list[Cell]
    rows: list[Row]
    seen: list[tuple[int, int]]


@pytest.fixture(scope="module")
def grid_run(job: Job, digits: Data, tmp_path_factory: pytest.TempPathFactory) -> GridRun:
    evaluation = evaluation_in(tmp_path_factory.mktemp("grid") / "evaluation", job, digits)
    cells, seen = GRID.cells("claim"), []
    rows = evaluate(evaluation, cells, progress=lambda _, done, total: seen.append((done, total)))
    return GridRun(evaluation, cells, rows, seen)


def test_a_grid_end_to_end(grid_run: GridRun) -> None:
    evaluation, cells, rows, seen = grid_run.evaluation, grid_run.cells, grid_run.rows, grid_run.seen
    assert [c.spec.role for c in cells].count("independent") == 2
    assert seen[0] == (0, 5)
    assert seen[-1] == (5, 5)
    by = {(r["role"], r["weight_transforms"], r["output_transform"], r["watermark"]): r for r in rows}
    assert by["surrogate", "", "", "none"]["verdict"] == "SUPPORTED"
    assert by["surrogate", "", "permute", "none"]["verdict"] == "SUPPORTED"
    assert by["independent", "", "", "none"]["verdict"] != "SUPPORTED"
    assert by["independent", "", "", "secret"]["verdict"] != "SUPPORTED"
    assert all(0.3 < r["utility"] <= 1 for r in rows)
    with (evaluation.out / "results.csv").open() as f:
        assert [r["key"] for r in csv.DictReader(f)] == [r["key"] for r in rows]
    assert json.loads((evaluation.out / "results.json").read_text())["rows"] == rows
    write_summary(rows, evaluation.out, "<b>digits</b>")
    page = (evaluation.out / "summary.html").read_text()
    assert "&lt;b&gt;digits" in page
    assert "<b>digits" not in page
    assert (evaluation.out / "roc.png").read_bytes().startswith(b"\x89PNG")


def test_a_grid_run_again_makes_lost_rows_from_kept_models(grid_run: GridRun) -> None:
    evaluation, cells, rows = grid_run.evaluation, grid_run.cells, grid_run.rows
    models = {p: p.stat().st_mtime_ns for p in (evaluation.out / "models").iterdir()}
    lost = evaluation.row_path(cells[1])
    lost.unlink()
    again = evaluate(evaluation, cells)
    assert {k: v for k, v in again[1].items() if "seconds" not in k} == {
        k: v for k, v in rows[1].items() if "seconds" not in k
    }
    assert {p: p.stat().st_mtime_ns for p in (evaluation.out / "models").iterdir()} == models


@pytest.mark.slow
def test_two_dask_workers_give_the_same_rows(evaluation: Evaluation, tmp_path: Path) -> None:
    grid = replace(GRID, epochs=2, weight_transforms=(), output_transforms=())
    cells = grid.cells("claim")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers: sums over another number of threads round otherwise
    here = evaluate(evaluation, cells)
    torch.set_num_threads(threads)
    with joblib_backend("dask", 2):
        there = evaluate(replace(evaluation, out=tmp_path / "dask"), cells, jobs=2)
    for a, b in zip(here, there, strict=True):
        assert a["key"] == b["key"]
        assert a["verdict"] == b["verdict"]
        assert a["partial_rsa.value"] == pytest.approx(b["partial_rsa.value"], abs=1e-3)


@pytest.fixture(scope="module")
def factory(job: Job, digits: Data, tmp_path_factory: pytest.TempPathFactory) -> ModelFactory:
    victim = load_trained(job.folder / "models/victim")
    assert isinstance(victim.encoder, Encoder)
    return ModelFactory(
        folder=tmp_path_factory.mktemp("models"),
        sources={"others": digits, "queries": digits},
        victim=(victim.encoder, "v"),
        settings=QUICK,
    )


@pytest.mark.parametrize("objective", [str(o) for o in Objective if o is not Objective.FILE])
def test_independents_of_every_objective(objective: str, factory: ModelFactory, digits: Data) -> None:
    spec = ModelSpec(role="independent", kind="x", arch="tiny", images=128, epochs=2, objective=objective)
    path = factory.make(spec)
    made = represent(load_encoder(path).encoder, digits.images[:32])
    assert made.shape == (32, 64)
    assert bool(torch.isfinite(made).all())
    assert made.std(0).max() > 0
    assert factory.make(replace(spec, kind="y")) == path  # the kind is a label, no ingredient
    assert factory.path(replace(spec, seed=1)) != path


@pytest.mark.parametrize("transform", ["prune:70", "fine_tune:1", "distil:mse:small_vgg", "embed:1", "supervised:1"])
def test_weight_transforms_start_from_the_same_surrogate(transform: str, factory: ModelFactory, digits: Data) -> None:
    spec = ModelSpec(role="surrogate", kind="x", arch="tiny", source="queries", images=128, epochs=2)
    if "small_vgg" in transform:  # its representations have another length than the surrogate's: no squared error
        transform = "distil:infonce:tiny"
    if "embed" in transform:  # which holds a quarter of the images out
        spec = replace(spec, images=400)
    transformed = replace(spec, weight_transforms=(transform,))
    path = factory.make(transformed)
    assert factory.path(spec).is_file()
    assert transformed.base == spec
    a, b = (represent(load_encoder(p).encoder, digits.images[:32]) for p in (path, factory.path(spec)))
    assert not torch.equal(a, b)


def test_every_weight_transform_of_a_spec_can_be_made() -> None:
    assert set(TRANSFORMED) | {name for name, e in EVASIONS.items() if e.weights} == set(WEIGHT_TRANSFORMS)


def test_merging_needs_a_checkpoint() -> None:
    with pytest.raises(TrainingError, match="checkpoint"):
        ModelSpec(role="surrogate", kind="direct", weight_transforms=("merge:30",))


def test_a_surrogate_that_starts_from_a_checkpoint_is_merged_with_it(factory: ModelFactory) -> None:
    spec = ModelSpec(role="surrogate", kind="x", arch="tiny", source="queries", images=128, epochs=1)
    start = factory.make(replace(spec, role="independent", objective="untrained"))
    merged = replace(spec, base_checkpoint=start.name, weight_transforms=("merge:100",))
    a, b = (load_encoder(p).encoder for p in (factory.make(merged), start))
    assert isinstance(a, Encoder)
    assert isinstance(b, Encoder)
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize(("chain", "dim"), [("pca", 32), ("append_own:3+permute", 128), ("prune:50+average", 64)])
def test_outputs_are_transformed(chain: str, dim: int, factory: ModelFactory, digits: Data) -> None:
    """The attacker's images are the queried ones; its own encoder is trained on them, without the victim."""
    spec = ModelSpec(role="surrogate", kind="x", arch="tiny", source="queries", images=128, epochs=1)
    encoder = load_encoder(factory.make(spec)).encoder
    front = transform_outputs(factory, spec, encoder, chain)
    assert represent(front, digits.images[:40]).shape == (40, dim)


def test_surrogate_and_independent_of_one_seed_get_the_same_images(factory: ModelFactory) -> None:
    surrogate = ModelSpec(role="surrogate", kind="x", arch="tiny", source="queries", images=64, seed=4)
    twin = replace(surrogate, role="independent")
    assert torch.equal(factory.chosen(surrogate).images, factory.chosen(twin).images)


@pytest.mark.parametrize(
    "change",
    [{"arch": "x"}, {"objective": "x"}, {"method": "x"}, {"method": "recreate-head"}, {"weight_transforms": ("x:1",)}],
)
def test_specs_are_checked(change: dict[str, object]) -> None:
    with pytest.raises(TrainingError):
        ModelSpec(role="surrogate", kind="x", **change)  # type: ignore[arg-type]


def test_what_cannot_be_made_is_said(factory: ModelFactory, evaluation: Evaluation) -> None:
    spec = ModelSpec(role="surrogate", kind="x", arch="tiny", source="nothing", images=64)
    with pytest.raises(TrainingError, match="no images called"):
        factory.make(spec)
    with pytest.raises(TrainingError, match="10000 of 1797"):
        factory.make(replace(spec, source="queries", images=10_000))
    with pytest.raises(TrainingError, match="no victim"):
        replace(factory, victim=None).make(replace(spec, source="queries"))
    with pytest.raises(TrainingError, match="no case"):
        evaluate(evaluation, [Cell(spec=spec, case="other")])
    with pytest.raises(TrainingError, match="no backend"), joblib_backend("nothing", 1):
        pass


def test_models_that_exist_are_audited_as_they_are(evaluation: Evaluation, job: Job) -> None:
    path = next((job.folder / "models").glob("*/encoder.onnx"))
    (row,) = evaluate(evaluation, list(existing_models([path], "claim")))
    assert (row["role"], row["kind"], row["objective"], row["base_checkpoint"]) == (
        "independent", f"encoder.onnx {sha256(path.read_bytes())[:8]}", "file", False,
    )  # fmt: skip
    assert not (evaluation.out / "models").exists()  # nothing was trained or copied
    with pytest.raises(TrainingError, match="does not exist"):
        list(existing_models([path.with_name("nothing")], "claim"))
    with pytest.raises(TrainingError, match="needs its file"):
        Grid(independents=("file",)).cells("claim")


def test_a_sample_of_a_grid_keeps_the_independents() -> None:
    grid = Grid(losses=("mse", "infonce"), queries=(100, 200), seeds=3)
    some = grid.cells("c", sample=5, seed=1)
    assert some == grid.cells("c", sample=5, seed=1) != grid.cells("c", sample=5, seed=2)
    roles = [c.spec.role for c in some]
    assert (roles.count("surrogate"), roles.count("independent")) == (5, 9)


# ---- rates ----------------------------------------------------------------------------------------------------------


def _rows(pairs: list[tuple[str, bool]]) -> list[dict[str, str]]:
    return [{"case": case, "verdict": "SUPPORTED" if hit else "NOT_SUPPORTED"} for case, hit in pairs]


def test_rates_and_their_interval() -> None:
    rows = _rows([("a", True), ("b", False), ("a", True), ("b", True)])
    assert rates(rows, lambda r: str(r["case"])) == [Rate(name="a", found=2, n=2), Rate(name="b", found=1, n=2)]
    low, high = Rate(name="x", found=0, n=300).interval
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 300))  # Clopper and Pearson by hand


def test_the_bootstrap_draws_whole_claims() -> None:
    """All hits in one of five claims: the share is that claim's number of draws, a binomial."""
    rows = _rows([(c, c == "a") for c in "abcde" for _ in range(10)])
    low, high = bootstrap_over(rows, "case", draws=40_000)
    expected = stats.binom(5, 0.2).ppf([0.025, 0.975]) / 5
    assert [low, high] == pytest.approx(list(expected))


def test_roc_against_a_naive_loop_and_the_mann_whitney_statistic() -> None:
    rng = np.random.default_rng(0)
    positives, negatives = rng.normal(1, 1, 40).round(1), rng.normal(0, 1, 60).round(1)
    false, true = roc(positives, negatives)
    area = float(np.trapezoid(true, false))
    u = stats.mannwhitneyu(positives, negatives).statistic
    assert area == pytest.approx(u / (40 * 60))
    best = max(
        float(np.mean(positives >= t))
        for t in [*positives, *negatives, np.inf]
        if float(np.mean(negatives >= t)) <= 0.05
    )
    assert tpr_at_fpr(positives, negatives, 0.05) == pytest.approx(best)


@pytest.mark.parametrize("arch", ["small_wide", "small_deep", "small_mobilenet", "small_vit"])
def test_the_small_architectures_take_any_size(arch: str) -> None:
    encoder = ARCHITECTURES[arch]().eval()
    for side in (16, 28, 32):
        assert encoder(torch.rand(2, 3, side, side)).shape == (2, encoder.dim)
