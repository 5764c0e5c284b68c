"""What tests of the command share: the types of the fixtures `run` and `audit_hostile`, and checks of what was said."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest

from cli.main import main

Run = Callable[..., tuple[int, str, str]]
Audit = Callable[..., tuple[int, str]]

LIMIT = 60.0
"""Seconds within which every case ends, whatever the machine is doing beside it."""


def children() -> set[int]:
    """Processes that this one has started and that are still there (Linux)."""
    found = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended since it was listed
            found |= {int(pid) for pid in task.read_text().split()}
    return found


def turnmark(folder: Path, *arguments: object) -> tuple[int, str, str]:
    """Run the command in this process and in `folder`: exit code, stdout, stderr; for module-scoped fixtures."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "argv", ["turnmark", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
    return int(end.value.code or 0), out.getvalue(), err.getvalue()


def error_line(err: str) -> str:
    """The one error line of a refused command: `error:`, or `Error:` of a usage error."""
    lines = [line for line in err.splitlines() if line.startswith(("error:", "Error:"))]
    assert len(lines) == 1, err
    return lines[0]
