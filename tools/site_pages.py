"""The pages of the site that are made from the code, and its links into the repository (hooks of MkDocs).

Nothing here is written to `docs/`: the command-line reference comes from the typer app, the Python reference from the
packages' exports, the glossary from the report's, the changelog and policies from the files at the root.
"""

from __future__ import annotations

import importlib
import json
import os
import posixpath
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
WIDTH = 78  # what is printed on a terminal of 80 columns
PACKAGES = ("ownership", "watermark_training", "attacks_for_eval")
COPIED = {
    "project/contributing.md": "CONTRIBUTING.md",
    "project/security-policy.md": "SECURITY.md",
    "project/changelog.md": "CHANGELOG.md",
}
INCLUDE = re.compile(r"^( *)# include: (\S+)$", re.MULTILINE)
DATE = re.compile(r"\| (\d{4}-\d\d-\d\d) \|")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


def commands(command: Any, path: tuple[str, ...] = ("turnmark",)) -> Iterator[tuple[str, Any]]:
    """Yield each command that does something, with the words that call it."""
    parts = getattr(command, "commands", None)  # of a group
    if parts is not None:
        for name, part in parts.items():
            if not part.hidden:
                yield from commands(part, (*path, name))
    else:
        yield " ".join(path), command


def help_text(root: Any, words: str) -> str:
    """Return what `WORDS --help` prints on a terminal of 80 columns."""
    command, context = root, None
    for word in words.split():
        if context is not None:
            command = command.commands[word]
        context = command.context_class(command, info_name=word, parent=context, terminal_width=WIDTH)
    return str(command.get_help(context)).rstrip()


def cli_page() -> str:
    """Return the reference of the command line."""
    from cli.main import app

    root = typer.main.get_command(app)
    found = list(commands(root))
    lines = [
        "# Command line",
        "",
        "What each command prints for `--help`. [Exit codes](exit-codes.md) are on their own page.",
        "",
    ]
    lines += ["| command | what it does |", "|---|---|"]
    for words, command in found:
        first = re.split(r"(?<=[.:]) ", " ".join((command.help or "").split()))[0].rstrip(".:")
        lines.append(f"| [`{words}`](#{words.replace(' ', '-')}) | {first} |")
    for words, _ in found:
        lines += ["", f"## {words}", "", "```text", help_text(root, words), "```"]
    return "\n".join(lines) + "\n"


def python_pages() -> dict[str, str]:
    """Return a page for each package: its exports, each under the module that defines it."""
    from ownership.io.lazy import public_names

    pages = {}
    for package in PACKAGES:
        doc = (importlib.import_module(package).__doc__ or "").strip()
        lines = [f"# {package}", "", doc.replace("::\n", ":\n"), ""]
        homes = public_names(ROOT / package / "__init__.pyi")
        for name in sorted(homes, key=lambda n: (not n[0].isupper() or n.isupper(), n.lower())):
            lines += [f"::: {homes[name]}.{name}", ""]
        pages[f"reference/python/{package}.md"] = "\n".join(lines)
    return pages


def schemas_page() -> str:
    """Return the fields that each JSON Schema requires, and the schema itself."""
    lines = ["# JSON Schemas", "", "Draft 2020-12. [File formats](../format.md) explains the fields.", ""]
    for path in sorted((DOCS / "schema").glob("*.json")):
        text = path.read_text(encoding="utf-8")
        lines += [f"## {path.name}", "", json.loads(text).get("description", ""), ""]
        lines += ['??? note "Schema"', "", "    ```json", *("    " + line for line in text.splitlines()), "    ```", ""]
    return "\n".join(lines)


def glossary_page() -> str:
    """Return the report's glossary, tests and plan fields."""
    from ownership.reports import glossary

    lines = ["# Glossary", "", "The words of reports, as every report prints them."]
    for title, name in (("Terms", "GLOSSARY"), ("Statistics", "EXPLAINED"), ("Fields of a plan", "PLAN_EXPLAINED")):
        lines += ["", f"## {title}", "", "| term | meaning |", "|---|---|"]
        for term, text in getattr(glossary, name).items():
            shown = term if name == "GLOSSARY" else f"`{term}`"
            lines.append(f"| {shown} | {' '.join(text.split()).replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def title(path: Path) -> str:
    """Return the first heading of a page."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            return line[2:].replace("`", "").strip()
    return path.stem


def listed(folder: str) -> list[dict[str, str] | str]:
    """Return the navigation of a folder: its index, then its pages by name."""
    pages = sorted((DOCS / folder).glob("*.md"), key=lambda p: (p.name != "index.md", p.name))
    return [f"{folder}/{p.name}" if p.name == "index.md" else {title(p): f"{folder}/{p.name}"} for p in pages]


def on_config(config: Any) -> Any:
    """Fill in the parts of the navigation that follow from what is there."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    filled = {
        "RESULTS": listed("results"),
        "ADR": listed("adr"),
        "PYTHON": [{p: f"reference/python/{p}.md"} for p in PACKAGES],
    }

    def fill(item: Any) -> Any:
        if isinstance(item, list):
            return [fill(i) for i in item]
        if isinstance(item, dict):
            return {k: fill(v) for k, v in item.items()}
        return filled.get(item, item)

    config.nav = fill(config.nav)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    pages = {
        "reference/cli.md": cli_page(),
        "reference/schemas.md": schemas_page(),
        "reference/glossary.md": glossary_page(),
    }
    pages |= python_pages()
    pages |= {target: (ROOT / source).read_text(encoding="utf-8") for target, source in COPIED.items()}
    for target, text in pages.items():
        files.append(File.generated(config, target, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links into the repository that the site does not hold into plain text, and map those that it does."""
    here = page.file.src_uri
    source = COPIED.get(here, f"docs/{here}")
    moved = {f"{source}": target for target, source in COPIED.items()}

    def mapped(match: re.Match[str]) -> str:
        text, link, anchor = match[1], match[2], match[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
        inside = target.removeprefix("docs/") if target.startswith("docs/") else moved.get(target)
        if inside and files.get_file_from_path(inside):
            return f"[{text}]({posixpath.relpath(inside, posixpath.dirname(here) or '.')}{anchor})"
        if (ROOT / target).exists():
            return text if text.startswith("`") else f"`{text}`"
        return match[0]  # MkDocs says that it is broken

    def included(match: re.Match[str]) -> str:
        return textwrap.indent((ROOT / match[2]).read_text(encoding="utf-8").rstrip(), match[1])

    markdown = INCLUDE.sub(included, LINK.sub(mapped, markdown))
    return DATE.sub(r'| <span class="date">\1</span> |', markdown)
