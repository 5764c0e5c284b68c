"""Commands that are ended by a signal, or whose reader leaves: what is cleaned up, and the exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.ending import heeding_signals
from cli.suspects import report_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

SLEEPS = """
import tempfile, time
from cli import main

def work():
    with tempfile.TemporaryDirectory(prefix="turnmark-"):
        print("ready", flush=True)
        time.sleep(60)

main.app = work
main.main()
"""

PRINTS = """
from cli import main, render

def work():
    for _ in range(10_000):
        render.line("SUPPORTED")
    render.data({"verdict": "SUPPORTED"})
    raise SystemExit(int(__import__("sys").argv[1]))

main.app = work
main.main()
"""


def _started(code: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", code, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cleans_up_as_ctrl_c_does(number: signal.Signals, tmp_path: Path) -> None:
    """Also where it comes twice, as timeout(1) sends it."""
    process = _started(SLEEPS, TMPDIR=str(tmp_path))
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert list(tmp_path.glob("turnmark-*"))
    process.send_signal(number)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert not list(tmp_path.iterdir())
    assert err == b"interrupted; finished parts are kept, and the same command continues from there\n"


def test_handlers_are_put_back_and_what_is_ignored_stays_so() -> None:
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heeding_signals() as ending:
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert ending.exit_code == 130
    finally:
        signal.signal(signal.SIGHUP, ignored)


@pytest.mark.parametrize("code", [0, 1, 6])
def test_a_reader_that_leaves_changes_no_exit_code(code: int) -> None:
    process = _started(PRINTS, str(code))
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"SUPPORTED\n"
    process.stdout.close()
    assert process.wait(30) == code
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_report_is_named_after_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resnet" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "resnet")
    assert report_folder(".") == report_folder("deep/..") == report_folder("../resnet") == Path("report-resnet")
    monkeypatch.chdir(tmp_path / "resnet" / "deep")
    assert report_folder("..") == Path("report-resnet")
    assert report_folder("HTTPS://models.example/v1") == Path("report-models.example-endpoint")
