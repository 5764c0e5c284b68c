"""The demo's job, really run at a small size: with a key alone (`keyed_job`), and with a panel (`job`).

Verdicts, layout, and that running again does nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.job import Job

from attacks_for_eval.demo import JobConfig, Row, run_job
from cli import render
from ownership.claims.claim import Claim
from ownership.errors import ClaimError, DataError, TrainingError
from ownership.reports.report import Report
from ownership.verdict.rule import Evidence, Verdict
from watermark_training.data import Data
from watermark_training.loaded_encoder import load_trained


def test_the_key_alone_tells_a_surrogate_from_another_owners_encoder(keyed_job: Job) -> None:
    """No panel: every verdict follows from the key test."""
    assert [(r.name, r.format) for r in keyed_job.rows] == [
        (name, suffix) for name in ("surrogate_mse", "independent_other_owner") for suffix in ("safetensors", "onnx")
    ]
    assert all(row.as_expected for row in keyed_job.rows), [(r.name, r.report.findings.key) for r in keyed_job.rows]
    for row in keyed_job.rows:
        report = row.report
        assert report.results == ()
        assert report.claim.panel == ()
        assert report.decision.evidence == ((Evidence.KEY,) if row.role == "surrogate" else ())
        key = report.findings.key
        assert key is not None
        assert (key.pvalue <= 1e-4) == (row.role == "surrogate")
    said = json.loads((keyed_job.folder / "summary.json").read_text())[0]
    assert said["key"]["pvalue"] == keyed_job.rows[0].report.findings.key.pvalue  # type: ignore[union-attr]
    assert set(said["key"]["z"]) == {"content", "invariant"}


def test_the_demos_keys_follow_from_the_seed(keyed_job: Job) -> None:
    """Two thirds of the public images are probes, the others are for reference surrogates; owners have other keys."""
    claim = Claim.load(keyed_job.folder / "claim")
    assert claim.material is not None
    key = claim.material.key
    assert key.secret == hashlib.sha256(b"turnmark demo, key 1").digest()
    assert (key.pool.images, key.probes, key.anchor) == (600, 400, None)
    assert len(claim.references) == 3
    other = load_trained(keyed_job.folder / "models/independent_other_owner").require_material().key
    assert other.pool == key.pool
    assert other.secret != key.secret


def test_the_demos_table_has_whole_names_at_80_columns(
    keyed_job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(render.out, "width", 80)
    render.demo(keyed_job.rows, "digits, seed 0")
    title, head, *rows = capsys.readouterr().out.splitlines()
    assert title.startswith("digits, seed 0; ")
    assert head.split() == ["suspect", "format", "verdict", "p", "content", "invariant"]
    assert [row.split()[:3] for row in rows] == [[r.name, r.format, r.report.verdict.value] for r in keyed_job.rows]
    assert max(map(len, (title, head, *rows))) <= 80


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
