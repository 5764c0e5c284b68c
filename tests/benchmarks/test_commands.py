"""Every benchmark has a command line, and its tables follow from the committed rows."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common import markdown
from benchmarks.common.command import main

FOLDER = Path(markdown.__file__).parents[1]
QUESTIONS = sorted(path.parent.name for path in FOLDER.glob("*/__main__.py"))
PREPARATIONS = ["benchmarks.prepare.pack", "benchmarks.prepare.public_encoders"]


def test_the_readme_names_every_question() -> None:
    text = (FOLDER / "README.md").read_text()
    for command in [*(f"benchmarks.{q}" for q in QUESTIONS), *PREPARATIONS, "benchmarks.results"]:
        assert f"python -m {command}" in text


@pytest.mark.parametrize("question", QUESTIONS)
def test_run_explains_itself(question: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["run", "--help"]):
        with pytest.raises(SystemExit) as exit_:
            main(f"benchmarks.{question}", arguments)
        assert exit_.value.code == 0
        assert f"python -m benchmarks.{question}" in capsys.readouterr().out


@pytest.mark.parametrize("question", [q for q in QUESTIONS if (FOLDER / q / "tables.py").is_file()])
def test_tables_follow_from_the_rows(question: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(f"benchmarks.{question}", ["tables"])
    shown = capsys.readouterr().out
    assert shown.count("\n|---|") >= len(importlib.import_module(f"benchmarks.{question}.tables").tables()) - 2


@pytest.mark.parametrize("module", PREPARATIONS)
def test_preparations_explain_themselves(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["-", "--help"])
    with pytest.raises(SystemExit) as exit_:
        importlib.import_module(module).main()
    assert exit_.value.code == 0


@pytest.mark.heavy
def test_a_question_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "benchmarks.fuzz", "tables"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, cwd=FOLDER.parent).stdout
    assert shown.startswith("### formats")


def test_markdown() -> None:
    assert doctest.testmod(markdown).failed == 0
