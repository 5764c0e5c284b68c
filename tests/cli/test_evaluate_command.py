"""`turnmark evaluate` and the audit's later options, through the command."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from support.command import Run, error_line
from support.job import Job


def test_evaluate_writes_table_picture_and_page_and_resumes(run: Run, job: Job, tmp_path: Path) -> None:
    arguments = [
        "attack", "evaluate", job.folder / "models/victim", "--claim", job.folder / "claim",
        "--query-data", "digits[1100:]",
        "--others", "digits[1100:]", "--out", tmp_path / "e", "--loss", "mse", "--n-queries", 200, "--epochs", 3,
        "--output-transform", "permute", "--independent", "untrained", "--n-images", 100, "--size", 16,
        "--independent-file", next((job.folder / "models").glob("*/encoder.onnx")),
    ]  # fmt: skip
    code, out, _ = run(*arguments)
    assert code == 0
    assert "independents: " in out
    assert " of 2 SUPPORTED" in out
    with (tmp_path / "e/results.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert [(r["role"], r["output_transform"]) for r in rows] == [
        ("surrogate", ""), ("surrogate", "permute"), ("independent", ""), ("independent", ""),
    ]  # fmt: skip
    assert (tmp_path / "e/roc.png").is_file()
    assert "False positives" in (tmp_path / "e/summary.html").read_text()
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "e/rows").iterdir()}
    assert run(*arguments)[0] == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "e/rows").iterdir()} == times


def test_evaluate_refuses_in_one_line(run: Run, job: Job) -> None:
    base = [
        "attack",
        "evaluate",
        job.folder / "models/victim",
        "--claim",
        job.folder / "claim",
        "--query-data",
        "digits[:50]",
    ]
    base += ["--others", "digits[:50]", "--out", "e"]
    code, _, err = run(*base, "--loss", "mse", "--n-queries", 400)
    assert code == 2
    assert "400 of 50 images" in error_line(err)
    code, _, err = run(*base, "--independent", "psychic")
    assert code == 2
    assert "psychic" in error_line(err)
    code, _, err = run(*base, "--backend", "abacus")
    assert code == 2
    assert "abacus" in error_line(err)


@pytest.mark.slow
def test_stop_early_and_models(run: Run, job: Job, tmp_path: Path) -> None:
    suspect = job.folder / "suspects/surrogate_mse.safetensors"
    files = tmp_path / "panel"
    files.mkdir()
    for folder in sorted((job.folder / "models").glob("panel_*")):
        (files / f"{folder.name}.safetensors").write_bytes((folder / "encoder.safetensors").read_bytes())
    code, out, _ = run(
        "audit", suspect, "--claim", job.folder / "claim", "--stop-early", "--models", files, "--out", "r"
    )
    assert code == 0
    assert "the claim's representations: computed again from files: plain_0, " in out
    assert "no file of their SHA-256 was given: reference_" in out
    stored = json.loads((tmp_path / "r/report.json").read_text())
    assert stored["decided_after"] in (250, 500, stored["queries"])
    again = {name for name, check in stored["models_checked"].items() if check["recomputed"]}
    assert again == {m["name"] for m in stored["claim"]["panel"]}
    assert "--stop-early" in stored["command"]
