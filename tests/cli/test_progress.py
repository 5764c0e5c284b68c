"""Progress: a bar on a terminal, lines without one, never a silence longer than 20 s, never ANSI without a terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from cli import progress
from ownership.io.progress import part

ROOT = Path(__file__).resolve().parents[2]


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=80, highlight=False)


def shown(where: Console) -> str:
    assert isinstance(where.file, io.StringIO)
    return where.file.getvalue()


def test_a_log_has_lines_that_say_step_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "BETWEEN", 0.0)
    log = console(terminal=False)
    with progress.progress(log) as show:
        members = part(show, "member", 16, 20, "plain_0")
        members("training", 3, 8)
    assert shown(log).splitlines() == [
        "member 16 of 20, plain_0 (0 s)",
        "member 16 of 20, plain_0: training, 3 of 8 (0 s)",
    ]


def test_a_log_is_neither_flooded_nor_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress.SILENCE <= 20
    log = console(terminal=False)
    with progress.progress(log) as show:
        for i in range(1000):
            show("training", i, 1000)
    assert shown(log) == ""  # all of it within 10 s
    monkeypatch.setattr(progress, "SILENCE", 1.1)
    with progress.progress(log) as show:
        show("a long step", 0, 3)
        time.sleep(2.5)  # nothing moves
    assert shown(log).count("a long step, 0 of 3") >= 1


def test_what_was_imported_before_counts_as_silence() -> None:
    log = console(terminal=False)
    with progress.progress(log, "loading images", quiet_since=time.monotonic() - progress.SILENCE):
        time.sleep(1.3)
    assert shown(log).startswith("loading images (1 s)")


def test_a_terminal_has_a_bar() -> None:
    screen = console(terminal=True)
    with progress.progress(screen) as show:
        show("member 2 of 5, plain_1: training", 1, 4)
        time.sleep(0.3)
    assert "member 2 of 5, plain_1: training, 1 of 4" in shown(screen)


def test_no_ansi_without_a_terminal_whatever_the_environment_says(tmp_path: Path) -> None:
    environment = {**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "PYTHONPATH": str(ROOT)}
    for words in (["audit", "nothing.onnx", "--claim", "x"], ["train", "--help"], ["attak"]):
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *words], capture_output=True, cwd=tmp_path, env=environment, check=False
        )
        assert b"\x1b" not in done.stdout + done.stderr, words
