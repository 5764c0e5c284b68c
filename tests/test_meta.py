"""The house: imports point one way, importing is cheap, names are what they say, the wheel holds what it should."""

from __future__ import annotations

import ast
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import ownership

ROOT = Path(__file__).resolve().parent.parent
ORDER = ["ownership", "watermark_training", "attacks_for_eval", "cli"]


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_one_way(package: str) -> None:
    allowed = set(ORDER[: ORDER.index(package) + 1])
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top not in ORDER or top in allowed, f"{path.name} imports {name}"


def test_the_door_is_what_it_says() -> None:
    assert set(ownership.__all__) == set(ownership._HOMES)
    for name in ownership.__all__:
        assert getattr(ownership, name) is not None
    with pytest.raises(AttributeError):
        _ = ownership.nothing
    assert callable(ownership.audit)


def test_import_is_cheap() -> None:
    code = (
        "import sys, ownership; heavy = {'torch', 'typer', 'onnxruntime', 'matplotlib', 'sklearn'} & set(sys.modules);"
        "assert not heavy, heavy;"
        "from ownership import Claim, load_suspect, audit; import types;"
        "assert isinstance(audit, types.FunctionType);"
        "heavy = {'typer', 'onnxruntime', 'matplotlib', 'sklearn'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_modules_are_short() -> None:
    long = {
        path.name: count
        for package in ORDER
        for path in (ROOT / package).rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 320
    }
    assert not long


def test_the_wheel_in_a_fresh_environment(tmp_path: Path) -> None:
    """Builds the wheel, installs it alone in a new environment (dependencies borrowed from this one), runs it."""
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
    shown = subprocess.run(
        [scripts / "turnmark", "--version"], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert shown.stdout.startswith("turnmark 0.")
    where = subprocess.run(
        [python, "-c", "import ownership, cli; print(ownership.__file__)"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert str(tmp_path) in where.stdout
