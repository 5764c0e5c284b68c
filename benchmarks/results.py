"""Write the tables and figures of `docs/results` from the committed rows.

    python -m benchmarks.results            # rewrite what differs
    python -m benchmarks.results --check    # change nothing; exit code 1 if a page differs from the rows

A page holds prose and, between `<!-- table: QUESTION/NAME -->` and `<!-- end -->`, tables of
`benchmarks/QUESTION/tables.py`.
"""

from __future__ import annotations

import argparse
import re
from functools import cache
from importlib import import_module
from pathlib import Path

from ownership.io.files import write_bytes

PAGES = Path(__file__).parents[1] / "docs" / "results"
FIGURES = ("verdicts", "paper", "evasion")
"""Questions that draw figures."""
MARKED = re.compile(r"(<!-- table: (?P<question>[a-z_]+)/(?P<name>[a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


@cache
def tables_of(question: str) -> dict[str, str]:
    """Return the tables of a question by name."""
    found: dict[str, str] = import_module(f"benchmarks.{question}.tables").tables()
    return found


def filled(page: str) -> str:
    """Return a page with every marked table made from the rows."""
    return MARKED.sub(lambda m: f"{m[1]}\n{tables_of(m['question'])[m['name']]}\n\n{m[4]}", page)


def used(page: str) -> set[tuple[str, str]]:
    """Return question and name of every table of a page."""
    return {(m["question"], m["name"]) for m in MARKED.finditer(page)}


def main() -> int:
    """Parse the command line; rewrite or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a page differs")
    arguments = parser.parse_args()
    differing = 0
    for path in sorted(PAGES.glob("*.md")):
        old = path.read_text(encoding="utf-8")
        if (new := filled(old)) != old:
            differing += 1
            print(f"{path.name}: {'differs from the rows' if arguments.check else 'rewritten'}")
            if not arguments.check:
                write_bytes(path, new.encode())
    if not arguments.check:
        for question in FIGURES:
            for name, content in import_module(f"benchmarks.{question}.figures").figures().items():
                write_bytes(PAGES / name, content)
    return int(arguments.check and differing > 0)


if __name__ == "__main__":
    raise SystemExit(main())
