"""The main job, really run at a small size: verdicts, layout, and that running again does nothing twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.job import Job

from attacks_for_eval.demo import JobConfig, Row, run_job
from ownership.claims.claim import Claim
from ownership.errors import ClaimError, DataError, TrainingError
from ownership.reports.report import Report
from ownership.verdict.rule import Verdict
from watermark_training.data import Data


def test_surrogates_are_supported_and_independent_encoders_are_not(job: Job) -> None:
    assert {(r.name, r.format) for r in job.rows} == {
        (name, suffix)
        for name in ("surrogate_mse", "surrogate_infonce", "independent_foreign_key", "independent_half_turn")
        for suffix in ("safetensors", "onnx")
    }
    for row in job.rows:
        expected = Verdict.SUPPORTED if row.role == "surrogate" else Verdict.NOT_SUPPORTED
        assert row.report.verdict is expected, row.name
        assert row.as_expected


def test_both_forms_of_a_model_get_the_same_verdict_and_nearly_the_same_numbers(job: Job) -> None:
    for a, b in zip(job.rows[::2], job.rows[1::2], strict=True):
        assert a.name == b.name
        for x, y in zip(a.report.results, b.report.results, strict=True):
            assert x.value == pytest.approx(y.value, abs=2e-3)


def test_layout(job: Job) -> None:
    for row in job.rows:
        assert (job.folder / f"suspects/{row.name}.{row.format}").is_file()
        folder = job.folder / f"reports/{row.name}-{row.format}"
        assert Report.load(folder / "report.json") == row.report
        assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert json.loads((job.folder / "summary.json").read_text())[0]["verdict"] == "SUPPORTED"


def test_the_panel_is_what_rule_2_asks(job: Job) -> None:
    claim = Claim.load(job.folder / "claim")
    assert len(claim.stratum("plain")) == len(claim.stratum("watermarked")) == 8
    assert {m.watermark for m in claim.stratum("watermarked")} == {"secret", "paper"}
    for kind in ("plain", "watermarked"):
        assert {m.trained_on_private for m in claim.stratum(kind)} == {True, False}
    assert len(claim.references) == 3


def test_the_keys_of_independent_encoders_differ_from_the_victims(job: Job) -> None:
    from watermark_training.loaded_encoder import load_trained

    keys = [
        load_trained(job.folder / f"models/{n}").key for n in ("victim", "panel_watermarked_0", "panel_watermarked_2")
    ]
    assert all(keys)
    assert len({k.sector_boundaries for k in keys if k}) == 3


def run_again(digits: Data, folder: Path, config: JobConfig) -> list[Row]:
    """Run a finished job once more; nothing of its models and its claim may be written."""
    before = {p: p.stat().st_mtime_ns for name in ("models", "claim") for p in (folder / name).rglob("*")}
    rows = run_job(digits, folder, config)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    return rows


def test_running_again_trains_nothing(job: Job, digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(job.folder, tmp_path / "job")  # shared: this run leaves the summary of no audits
    monkeypatch.setattr("attacks_for_eval.demo._audits", lambda *_: iter(()))
    assert run_again(digits, folder, job.config) == []


@pytest.mark.slow
def test_running_again_gives_the_same_reports(job: Job, digits: Data) -> None:
    assert [r.report for r in run_again(digits, job.folder, job.config)] == [r.report for r in job.rows]


def test_a_folder_holds_one_job(job: Job, digits: Data) -> None:
    with pytest.raises((TrainingError, ClaimError), match="another configuration"):
        run_job(digits, job.folder, replace(job.config, seed=1))


def test_too_few_images_are_said(digits: Data, tmp_path: Path) -> None:
    few = Data(name="few", images=digits.images[:500], labels=None)
    with pytest.raises(DataError, match="too few"):
        run_job(few, tmp_path, JobConfig())
