"""The README and the tutorials are run as written; the README keeps to its size, and what it names exists."""

from __future__ import annotations

import doctest
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from support.command import Run
from support.job import Job

from ownership.encoders.images import represent
from watermark_training.data import load_data
from watermark_training.loaded_encoder import load_trained

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TUTORIALS = [ROOT / "docs/tutorials" / name for name in ("protect-an-encoder.md", "audit-a-suspect.md")]


def bash_lines(text: str) -> list[str]:
    """Return the commands of a page's bash blocks, without comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.heavy
def test_the_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert result.attempted >= 11
    assert result.failed == 0


def test_the_readme_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 130
    assert max(map(len, lines)) <= 100


def test_make_targets_and_extras_exist() -> None:
    import tomllib

    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([\w-]+)`", README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert {"check", "demo", "docs"} <= named
    for target in named:
        assert f"\n{target}:" in makefile, target
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    pages = README + "".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs").rglob("*.md"))
    for wanted in re.findall(r"pip install '(?:turnmark|\.)\[([\w,]+)\]'", pages):
        assert set(wanted.split(",")) <= set(extras), wanted


TUTORIAL_LINES = [
    line
    for page in TUTORIALS
    for line in bash_lines(page.read_text(encoding="utf-8"))
    if not line.startswith("pip install ")
]
TRAINING = ("turnmark train ", "turnmark panel ", "turnmark claim build ", "turnmark attack extract ")


@pytest.fixture(scope="module")
def workplace(keyed_job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the tutorials' trainings leave, made by the demo's."""
    folder = tmp_path_factory.mktemp("tutorials")
    for source, name in (("models/victim", "victim"), ("claim", "claim"), ("models/surrogate_mse", "surrogate")):
        shutil.copytree(keyed_job.folder / source, folder / name)
    return folder


@pytest.mark.parametrize(
    "line",
    [line for line in TUTORIAL_LINES if not line.startswith(TRAINING)],
    ids=lambda line: "-".join(word for word in line.split()[1:3] if word.isalpha()),
)
def test_the_tutorials_lines_run_on_a_trained_claim(
    line: str, run: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after another, without the trainings: those run as written in `make slow`."""
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("TURNMARK_PASSPHRASE", "")
    code, out, err = run(*shlex.split(line)[1:])
    assert code in ((0, 4) if line == "turnmark doctor" else (0,)), out + err
    if line.startswith("turnmark report reproduce"):
        assert out.splitlines()[-1].startswith("reproduced: SUPPORTED")


@pytest.mark.slow
def test_the_tutorials_run_as_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an untrained encoder to a verified, reproduced report."""
    monkeypatch.setenv("TURNMARK_PASSPHRASE", "")
    assert all(line.startswith("turnmark ") for line in TUTORIAL_LINES)
    said = {}
    for line in TUTORIAL_LINES:
        code, out, err = run(*shlex.split(line)[1:])
        assert code in ((0, 4) if line == "turnmark doctor" else (0,)), f"{line}\n{out}{err}"
        said[" ".join(line.split()[1:3])] = out
    assert said["audit surrogate/encoder.onnx"].startswith("SUPPORTED")
    assert "UNTIMESTAMPED" in said["audit surrogate/encoder.onnx"]
    assert "A. Expert" in said["report verify"]
    assert "from the court, 2026-05-02" in said["report verify"]
    assert said["report reproduce"].splitlines()[-1].startswith("reproduced: SUPPORTED")
    page = Path("report/report.html").read_text(encoding="utf-8")
    assert "from the court, 2026-05-02" in page


def test_ci_runs_the_readmes_command() -> None:
    assert "make check" in (ROOT / ".ci/run").read_text(encoding="utf-8")


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("example", "steps"),
    [
        ("plain_pytorch", 150),
        pytest.param("lightly_simclr", 15, marks=pytest.mark.slow),
        pytest.param("lightning_module", 150, marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning", "ignore::UserWarning:lightning")
@pytest.mark.filterwarnings("ignore:.*GPU.*", "ignore:.*num_workers.*", "ignore:.*lightning.*")
def test_the_loop_of_ones_own_runs(example: str, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/examples: the key test finds the watermark, and a claim can be built from the folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("secrets.token_bytes", bytes)  # the same key in each run
    torch.manual_seed(0)
    main = runpy.run_path(str(ROOT / f"docs/examples/{example}.py"))["main"]
    assert main(steps) < (1e-3 if steps > 100 else 1.1)
    assert (tmp_path / "victim/key.json").stat().st_mode & 0o777 == 0o600
    loaded = load_trained(tmp_path / "victim")
    loaded.require_watermark()
    assert loaded.watermark == "keyed"
    assert represent(loaded.encoder, load_data("digits").images[:3]).shape[0] == 3
