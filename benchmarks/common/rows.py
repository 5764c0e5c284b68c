"""Committed rows: one JSON object a line, in `rows.jsonl` or (if large) `rows.jsonl.gz` of the question's folder."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ownership.io.files import write_bytes

Row = dict[str, Any]
"""One measurement: JSON-ready."""

QUESTIONS = Path(__file__).parents[1]
"""The folder that holds one folder a question."""


class RowStore:
    """The rows of one question.

    Args:
        question: name of its folder in `benchmarks`.
        compressed: whether the file is compressed (gzip).
    """

    def __init__(self, question: str, *, compressed: bool = False) -> None:
        self.path = QUESTIONS / question / ("rows.jsonl.gz" if compressed else "rows.jsonl")

    def load(self) -> list[Row]:
        """Return the committed rows in their order; an empty list if there is no file."""
        if not self.path.is_file():
            return []
        return [dict(row) for row in _parsed(self.path, self.path.stat().st_mtime_ns)]

    def save(self, rows: Iterable[Row]) -> None:
        """Write all rows, atomically; the same rows give the same bytes."""
        text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode()
        write_bytes(self.path, gzip.compress(text, mtime=0) if self.path.suffix == ".gz" else text)

    def append(self, row: Row) -> None:
        """Add one row at the end."""
        self.save([*self.load(), row])

    def replace(self, rows: Sequence[Row], same: Callable[[Row], Hashable]) -> None:
        """Add rows in place of older ones of the same measurement.

        Args:
            rows: the new ones.
            same: what is equal for two rows of one measurement.
        """
        again = {same(row) for row in rows}
        self.save([*(row for row in self.load() if same(row) not in again), *rows])


@cache
def _parsed(path: Path, _changed: int) -> tuple[Row, ...]:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    return tuple(json.loads(line) for line in text.decode().splitlines())
