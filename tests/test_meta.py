"""The structure: import contracts, length of modules, contents of the wheel."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.encoders import encoder

from ownership.io.extras import EXTRAS
from watermark_training.encoder_files import weights_bytes

ROOT = Path(__file__).resolve().parent.parent
ORDER = ["ownership", "watermark_training", "attacks_for_eval", "cli"]


BREAKING_IMPORTS = {  # contract of `pyproject.toml` -> module, an import that breaks the contract
    "packages": ("watermark_training/config.py", "import cli"),
    "ownership": ("ownership/verdict/rule.py", "from ownership.claims.claim import Claim"),
    "hostile": ("ownership/suspects/suspect.py", "from ownership.plan import Plan"),
    "suspects": ("ownership/suspects/suspect.py", "import ownership.suspects.endpoint.client"),
    "formats": ("ownership/suspects/formats/onnx_file.py", "import ownership.suspects.formats.torch_export"),
    "before-the-lock": ("ownership/suspects/sandbox/layers.py", "import torch"),
    "attacks": ("attacks_for_eval/evasion/__init__.py", "import attacks_for_eval.claims"),
    "terminal": ("ownership/reports/html.py", "import rich"),
}


def lint_imports(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    return subprocess.run([*command, "--no-cache", *options], cwd=folder, capture_output=True, text=True, check=False)


def contracts() -> list[dict[str, Any]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    assert not settings.get("exclude_type_checking_imports")
    found: list[dict[str, Any]] = settings["contracts"]
    return found


@pytest.mark.heavy
def test_imports_keep_the_contracts() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout
    assert f"Contracts: {len(contracts())} kept, 0 broken." in done.stdout


@pytest.mark.heavy
def test_each_contract_can_fail(tmp_path: Path) -> None:
    """An import for type checkers only, in a copy, breaks each contract."""
    assert set(BREAKING_IMPORTS) == {contract["id"] for contract in contracts()}
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ORDER:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for contract, (name, line) in BREAKING_IMPORTS.items():
        path = tmp_path / name
        before = path.read_text(encoding="utf-8")
        path.write_text(
            f"{before}\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {line}\n", encoding="utf-8"
        )
        done = lint_imports(tmp_path, "--contract", contract)
        path.write_text(before, encoding="utf-8")
        assert done.returncode == 1, (contract, done.stdout)
        assert "0 kept, 1 broken." in done.stdout, contract


@pytest.mark.parametrize("container", ["ownership", "attacks_for_eval"])
def test_each_room_says_what_it_may_import(container: str) -> None:
    """The docstring of a room allows its imports, and allows nothing that the contract forbids."""
    (layers,) = (c["layers"] for c in contracts() if c.get("containers") == [container])
    floors = [[room.strip() for room in re.split("[|:]", layer)] for layer in layers]
    floor_of = {room: i for i, rooms in enumerate(floors) for room in rooms}
    for room in floor_of:
        folder = ROOT / container / room
        if not folder.is_dir():
            continue
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        said = re.search(r"May import: (.*)\.$", docstring.splitlines()[0])
        assert said, room
        allowed = set(re.findall(r"\w+", said[1])) & set(floor_of)
        if said[1].endswith("and below"):
            allowed |= {r for r, floor in floor_of.items() if floor > max(floor_of[a] for a in allowed)}
        assert all(floor_of[other] > floor_of[room] for other in allowed), room
        imported = {
            name.split(".")[1]
            for path in folder.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and (name := f"{node.module}.").startswith(f"{container}.")
        }
        assert imported - {room} <= allowed, room


def test_modules_are_short() -> None:
    long = {
        path.name: count
        for package in ORDER
        for path in (ROOT / package).rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 320
    }
    assert not long


HIDE = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in NAMES else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""


@pytest.mark.slow
def test_the_wheel_in_a_fresh_environment(tmp_path: Path, claim_folder: Path) -> None:
    """Builds the wheel, installs it alone in a new environment (dependencies borrowed from this one), runs it.

    Then every module of an extra is hidden: the base installation audits, and other commands name the extra.
    """
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        assert {t for t in tops if not t.endswith(".dist-info")} == set(ORDER)
        assert "ownership/reports/templates/report.html.j2" in archive.namelist()
        assert "ownership/__init__.pyi" in archive.namelist()
    venv.create(tmp_path / "env", with_pip=False)
    scripts = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    python = scripts / "python"
    site = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], check=True, capture_output=True, text=True
    ).stdout.strip()
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "-q", str(wheel)],
        check=True,
    )
    borrowed = [p for p in sys.path if p.endswith("site-packages")]
    Path(site, "borrowed.pth").write_text("\n".join(borrowed))
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}  # which may name this checkout
    shown = subprocess.run(
        [scripts / "turnmark", "--version"], check=True, capture_output=True, text=True, cwd=tmp_path, env=clean
    )
    assert shown.stdout.startswith("turnmark 0.")
    where = subprocess.run(
        [python, "-c", "import ownership, cli; print(ownership.__file__)"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean,
    )
    assert str(tmp_path) in where.stdout
    Path(site, "hidden.py").write_text(f"NAMES = {set(EXTRAS)!r}{HIDE}")
    Path(site, "hidden.pth").write_text("import hidden\n")
    (tmp_path / "suspect.safetensors").write_bytes(weights_bytes(encoder(3), "tiny"))
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")

    def turnmark(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [scripts / "turnmark", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=clean,
            check=False,
        )

    done = turnmark("audit", "suspect.safetensors", "--claim", claim_folder, "--out", "report")
    assert (done.returncode, done.stdout.split()[0]) == (1, "NOT_SUPPORTED"), done.stderr
    assert (tmp_path / "report/report.html").is_file()
    for extra, words in {
        "train": ("train", "digits", "--out", "v", "--arch", "torchvision:resnet18", "--device", "cpu"),
        "seal": ("claim", "verify", ROOT / "tests/golden/claim"),
        "endpoint": ("audit", "https://localhost:1/represent", "--claim", claim_folder),
        "serve": ("attack", "serve", "suspect.safetensors"),
    }.items():
        done = turnmark(*words)
        assert done.returncode == 2, (extra, done)
        assert f"pip install '.[{extra}]'" in done.stderr, (extra, done.stderr)
