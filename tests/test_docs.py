"""The documents say what the code does: help texts, options, the index of decisions, links."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from attacks_for_eval.evasion.apply import EVASIONS
from cli.main import app

ROOT = Path(__file__).resolve().parent.parent
COMMAND = typer.main.get_command(app)
SITE: dict[str, Any] = runpy.run_path(str(ROOT / "tools/site_pages.py"))
COMMANDS: dict[str, Any] = dict(SITE["commands"](COMMAND))
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if "adr" not in p.parts)
ROOT_PAGES = [ROOT / n for n in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")]


def bash_lines(text: str) -> list[str]:
    """Return the turnmark commands of a page's bash blocks, continued lines joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.startswith("turnmark ")]


def test_the_reference_shows_what_help_prints() -> None:
    page = SITE["cli_page"]()
    shown = dict(re.findall(r"^## (turnmark .+?)\n\n```text\n(.*?)\n```", page, flags=re.MULTILINE | re.DOTALL))
    assert set(shown) == set(COMMANDS)
    for words, text in shown.items():
        printed = CliRunner().invoke(
            app, [*words.split()[1:], "--help"], prog_name="turnmark", terminal_width=SITE["WIDTH"]
        )
        assert printed.exit_code == 0, words
        assert printed.output.rstrip() == text, words


@pytest.mark.parametrize("page", [*PAGES, *ROOT_PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_and_options_of_a_page_exist(page: Path) -> None:
    for line in bash_lines(page.read_text(encoding="utf-8")):
        words = shlex.split(line, comments=True)
        if words == ["turnmark", "--version"]:
            continue
        name = max((c for c in COMMANDS if words[: len(c.split())] == c.split()), key=len, default=None)
        assert name is not None, line
        known = {option for p in COMMANDS[name].params for option in (*p.opts, *p.secondary_opts)}
        assert {w.split("=")[0] for w in words if w.startswith("--")} <= known | {"--help"}, line


@pytest.mark.parametrize("page", [*PAGES, *ROOT_PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_and_options_in_a_sentence_exist(page: Path) -> None:
    known = {option for c in COMMANDS.values() for p in c.params for option in (*p.opts, *p.secondary_opts)}
    groups = {words.split()[1] for words in COMMANDS if len(words.split()) > 2}
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`\n]+)`", text):
        if code.startswith("turnmark ") or (code.startswith("--") and page.parent.name != "results"):
            named = {word.split("=")[0].rstrip(",.)") for word in code.split() if word.startswith("--")}
            assert named <= known | {"--version", "--help"}, code
        if code.startswith("turnmark ") and not code.startswith("turnmark --"):
            words = code.split()[: 3 if code.split()[1] in groups else 2]
            assert any(c.split()[: len(words)] == words for c in COMMANDS), code


@pytest.mark.parametrize("page", [*PAGES, *ROOT_PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_files_named_in_a_sentence_exist(page: Path) -> None:
    top = "ownership|watermark_training|attacks_for_eval|cli|benchmarks|tests|tools|docs"
    for path in re.findall(rf"`((?:{top})/[\w/.-]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


def test_the_index_of_decisions_repeats_their_headers() -> None:
    index = (ROOT / "docs/adr/index.md").read_text(encoding="utf-8")
    rows = []
    for path in sorted((ROOT / "docs/adr").glob("0*.md")):
        head, _, status, date = path.read_text(encoding="utf-8").splitlines()[:4]
        number, title = re.fullmatch(r"# (\d+)\. (.*)", head).groups()  # type: ignore[union-attr]
        assert path.name.startswith(f"{int(number):04d}-")
        assert re.fullmatch(r"- Status: (accepted|superseded).*", status), path.name
        assert re.fullmatch(r"- Date: \d{4}-\d\d-\d\d", date), path.name
        rows.append(f"| [{number}]({path.name}) | {title} | {status[10:]} | {date[8:]} |")
    assert [int(r.split("]")[0][3:]) for r in rows] == list(range(1, len(rows) + 1))
    assert [line for line in index.splitlines() if line.startswith("| [") and line.endswith(tuple("0123456789 |"))][
        : len(rows)
    ] == rows


@pytest.mark.parametrize("page", [*ROOT_PAGES, *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_of_a_page_exist(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
        target = page.parent / link
        generated = str(target.resolve().relative_to(ROOT / "docs")) if "docs" in target.resolve().parts else ""
        assert target.exists() or generated.startswith(("reference/", "project/")), link


def test_the_citation_and_the_package_have_one_version() -> None:
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)],
        check=True,
        cwd=ROOT,
    )
    assert "partial_rsa_relative" in (tmp_path / "statistics.html").read_text(encoding="utf-8")


def test_every_evasion_is_described_as_it_is() -> None:
    """Name, argument, what it does, what it needs and where it is from."""
    page = (ROOT / "docs/attacks.md").read_text(encoding="utf-8")
    for name, evasion in EVASIONS.items():
        articles = {"encoder": "an encoder", "checkpoint": "the checkpoint"}
        needed = ", ".join(articles.get(n, n) for n in evasion.needs) or "-"
        argument = ":NAME" if isinstance(evasion.argument, tuple) else ":N" if evasion.argument else ""
        row = f"| `{name}{argument}` | {evasion.what} | {needed} | {evasion.source} |"
        assert row in page, row
    assert page.count(" | ") >= 3 * len(EVASIONS)
