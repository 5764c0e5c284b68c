"""Extras: the error names the extra, and pyproject.toml installs what the error promises."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ownership.errors import OwnershipError
from ownership.io.extras import EXTRAS, require

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", r)[0].lower().replace("_", "-") for r in requirements}


def test_every_optional_module_is_installed_by_its_extra() -> None:
    packages = importlib.metadata.packages_distributions()
    for module, extra in EXTRAS.items():
        assert packages[module][0].lower().replace("_", "-") in names(PROJECT["optional-dependencies"][extra]), module
        assert packages[module][0].lower() not in names(PROJECT["dependencies"]), module
    extras = set(PROJECT["optional-dependencies"]) - {"all"}
    assert set(EXTRAS.values()) == extras
    every = ",".join(e for e in PROJECT["optional-dependencies"] if e != "all")
    assert PROJECT["optional-dependencies"]["all"] == [f"turnmark[{every}]"]


def test_the_base_installation_stays_small() -> None:
    assert len(PROJECT["dependencies"]) <= 16


def test_a_missing_module_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    require("timm")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(OwnershipError, match="this needs timm") as e:
        require("timm")
    assert "pip install '.[train]'" in e.value.hint
    assert e.value.exit_code == 2


def test_a_module_that_is_there_but_broken_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "uvicorn.py").write_text("import no_such_module_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "uvicorn", raising=False)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        require("uvicorn")


@pytest.mark.heavy
def test_no_optional_module_lets_nested_json_end_the_process() -> None:
    """py_ecc raises the recursion limit to 100,000; at that limit this JSON overflows the C stack."""
    program = f"""
import sys
from ownership.errors import ClaimError
from ownership.io.canonical import parse_json
from ownership.io.extras import require
limit = sys.getrecursionlimit()
for module in {list(EXTRAS)}:
    require(module)
assert sys.getrecursionlimit() == limit
try:
    parse_json(b"[" * 200_000, ClaimError, "claim.json")
except ClaimError as e:
    print(e)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stdout) == (0, "claim.json is not valid JSON\n"), run.stderr
