"""Unfinished folders: a note in a folder that is being written says which command continues it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ownership.errors import OwnershipError
from ownership.io.files import read_json, write_json
from ownership.io.text import printable

NOTE = "unfinished.json"


@contextmanager
def unfinished(folder: Path, kept: Path) -> Iterator[None]:
    """Keep a note in the folder that its content is unfinished, until the work inside ends without an error.

    The note holds the command line of this process, if it is a `turnmark` command. Work that fails before it has kept
    anything to continue from leaves no note. A note that is there already stays: another command does not continue it.

    Args:
        folder: where the work writes.
        kept: file that the work continues from after an interruption.
    """
    program, *arguments = sys.argv or [""]
    known = Path(program).name == "turnmark" or Path(program).parent.name == "cli"
    if not (kept.exists() and (folder / NOTE).is_file()):
        write_json(folder / NOTE, {"command": shlex.join(["turnmark", *arguments]) if known else ""})
    try:
        yield
    except BaseException:
        if not kept.exists():
            (folder / NOTE).unlink(missing_ok=True)
        raise
    (folder / NOTE).unlink(missing_ok=True)


def refuse_unfinished(folder: Path, error: type[OwnershipError]) -> None:
    """Raise `error` if the folder holds unfinished work; its hint is the command that continues it."""
    if not (folder / NOTE).is_file():
        return
    command = str(read_json(folder / NOTE, error, "unfinished folder").get("command", ""))
    hint = printable(command, 1000) if command else "repeat the call that started it: it resumes"
    raise error(f"{printable(folder, 300)} is unfinished: its training was interrupted", f"continue it: {hint}")
