"""The pages of docs/results show what the committed rows give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.results import FIGURES, PAGES, filled, main, used

NAMES = sorted(path.name for path in PAGES.glob("*.md"))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_what_the_rows_give(name: str) -> None:
    page = (PAGES / name).read_text(encoding="utf-8")
    assert filled(page) == page, "python -m benchmarks.results"


@pytest.mark.parametrize("name", [n for n in NAMES if n != "index.md"])
def test_a_page_names_its_command(name: str) -> None:
    page = (PAGES / name).read_text(encoding="utf-8")
    for question in {question for question, _ in used(page)}:
        assert f"python -m benchmarks.{question} run" in page
    assert f"({name})" in (PAGES / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_pictures_and_pages_exist(name: str) -> None:
    page = (PAGES / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page):
        assert (PAGES / target).resolve().is_file(), target


def test_a_page_that_differs_is_reported_and_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text.\n\n<!-- table: fuzz/formats -->\nold\n<!-- end -->\n\nMore text.\n")
    monkeypatch.setattr("benchmarks.results.PAGES", tmp_path)
    monkeypatch.setattr("benchmarks.results.FIGURES", ())
    monkeypatch.setattr("sys.argv", ["results", "--check"])
    assert main() == 1
    assert "differs" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["results"])
    assert main() == 0
    text = page.read_text()
    assert text.startswith("Text.\n\n<!-- table")
    assert "| safetensors | 10,000 |" in text
    assert text.endswith("<!-- end -->\n\nMore text.\n")
    monkeypatch.setattr("sys.argv", ["results", "--check"])
    assert main() == 0


def test_figures_are_there() -> None:
    assert FIGURES == ("verdicts", "paper", "evasion")
    for name in ("price.png", "roc.png", "figure-2.png", "evasion.png"):
        assert (PAGES / name).read_bytes().startswith(b"\x89PNG")
