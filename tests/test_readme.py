"""The README's library example runs, and what it names exists."""

from __future__ import annotations

import doctest
import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch
from conftest import Run

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert result.attempted >= 12
    assert result.failed == 0


def test_links_and_pictures_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 5
    for link in links:
        assert (ROOT / link).exists(), link


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make (\w+)", README, flags=re.M):
        assert f"\n{target}:" in makefile


def test_options_named_by_hand_exist() -> None:
    """Every --option of the README's commands is one of that command."""
    import typer.main

    from cli.main import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    block = README.split("## By hand")[1].split("## As a library")[0].replace("\\\n", " ")
    lines = [line.strip().split("#")[0] for line in block.splitlines() if line.strip().startswith("turnmark ")]
    assert len(lines) == 14
    for line in lines:
        words = line.split()
        command = commands[words[1]]
        if words[1] == "claim":
            command = command.commands[words[2]]
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        assert {w for w in words if w.startswith("--")} <= known, line


def test_a_case_in_eight_commands(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newcomer's walk, as written: from a trained victim to a verified, reproduced report."""
    monkeypatch.setenv("TURNMARK_PASSPHRASE", "")
    section = README.split("## A case in eight commands")[1].split("\n## ")[0]
    lines = [line.strip() for line in section.splitlines() if line.startswith("    turnmark ")]
    assert [line.split()[1] for line in lines[:2]] == ["train", "steal"]
    assert 0 < len(lines[2:]) <= 8
    said = {}
    for line in lines:
        code, out, err = run(*shlex.split(line)[1:])
        assert code == 0, f"{line}\n{out}{err}"
        said[" ".join(line.split()[1:3])] = out
    assert said["audit stolen/encoder.onnx"].startswith("SUPPORTED")
    assert "UNTIMESTAMPED" in said["audit stolen/encoder.onnx"]
    assert "A. Expert" in said["report verify"]
    assert "from the court, 2026-05-02" in said["report verify"]
    assert said["report reproduce"].splitlines()[-1].startswith("reproduced: SUPPORTED")
    page = Path("report/report.html").read_text(encoding="utf-8")
    assert "from the court, 2026-05-02" in page


def test_ci_runs_the_readmes_command() -> None:
    assert "make check" in (ROOT / ".ci/run").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("example", "steps"), [("plain_pytorch", 150), ("lightly_simclr", 15), ("lightning_module", 150)]
)
@pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning", "ignore::UserWarning:lightning")
@pytest.mark.filterwarnings("ignore:.*GPU.*", "ignore:.*num_workers.*", "ignore:.*lightning.*")
def test_the_loop_of_ones_own_runs(example: str, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/examples: the mark is learnt, and the secret is written for the owner alone."""
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: str(tmp_path))
    torch.manual_seed(0)
    main = runpy.run_path(str(ROOT / f"docs/examples/{example}.py"))["main"]
    assert main(steps) > 0.6  # chance is one half; 64 views or more
    assert (tmp_path / "predictor.safetensors").stat().st_mode & 0o777 == 0o600
