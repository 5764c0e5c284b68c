"""The command line of every question: `python -m benchmarks.QUESTION run` measures, `tables` prints committed rows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

COMMANDS = {
    "run": "measure and write rows (resumes where that is possible)",
    "tables": "print the committed rows as Markdown; run nothing",
}


def main(question: str, argv: Sequence[str] | None = None) -> None:
    """Run one command of a question.

    Args:
        question: the package, such as `benchmarks.verdicts`. Its module `run` has `add_arguments(parser)` and
            `run(arguments)`; its module `tables`, if there is one, has `tables() -> dict[str, str]`.
        argv: the arguments; those of the process if None.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {question}",
        description=import_module(question).__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, says in COMMANDS.items():
        if find_spec(f"{question}.{name}") is not None:
            commands.add_parser(name, help=says, add_help=False)
    known, rest = parser.parse_known_args(argv)
    module = import_module(f"{question}.{known.command}")
    inner = argparse.ArgumentParser(
        prog=f"python -m {question} {known.command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if known.command == "tables":
        inner.parse_args(rest)
        for name, table in module.tables().items():
            print(f"### {name}\n\n{table}\n")
        return
    module.add_arguments(inner)
    module.run(inner.parse_args(rest))
