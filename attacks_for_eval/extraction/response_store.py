"""Responses of a victim on disk: a SQLite file, which survives interruption at any moment and grows in place."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ownership.errors import TrainingError
from ownership.io.text import printable

Query = tuple[bytes, int]
"""SHA-256 of an image's bytes and its occurrence: 0 for the first query of this image, 1 for the second, and so on."""


class ResponseStore:
    """Responses of one victim.

    Args:
        path: the file; it is created with the first response.
        victim: name of the victim that the responses come from.

    Raises:
        TrainingError: if the file is damaged or holds the responses of another victim.
    """

    def __init__(self, path: Path, victim: str) -> None:
        self._path, self._victim = path, victim
        self._known: set[Query] = set()
        if not path.is_file():
            return
        with self._open() as file:
            names = [str(name) for (name,) in file.execute("SELECT name FROM victim")]
            rows = file.execute("SELECT image, occurrence FROM responses")
            self._known = {(bytes(image), int(occurrence)) for image, occurrence in rows}
        if names not in ([], [victim]):
            raise TrainingError(f"{printable(path.name)} holds the responses of another victim", "choose another --out")

    def __len__(self) -> int:
        return len(self._known)

    def images(self) -> set[bytes]:
        """Return the SHA-256 of each image with a stored response."""
        return {digest for digest, _ in self._known}

    def find(self, queries: Sequence[Query]) -> dict[Query, Tensor]:
        """Return the stored responses `(d,)` to these queries."""
        known = [query for query in queries if query in self._known]
        if not known:
            return {}
        with self._open() as file:
            return {query: _vector(file.execute(_FIND, query).fetchone()[0]) for query in known}

    def add(self, queries: Sequence[Query], responses: Tensor) -> None:
        """Store responses `(n, d)`, all or none."""
        rows = responses.float().cpu().contiguous().numpy()
        with self._open() as file:
            file.execute("INSERT INTO victim SELECT ? WHERE NOT EXISTS (SELECT 1 FROM victim)", (self._victim,))
            values = [(*query, row.tobytes()) for query, row in zip(queries, rows, strict=True)]
            file.executemany("INSERT INTO responses VALUES (?, ?, ?)", values)
        self._known.update(queries)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file with its tables; commits at the end, or nothing."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path)) as file, file:
                file.execute("CREATE TABLE IF NOT EXISTS victim (name TEXT)")
                file.execute(
                    "CREATE TABLE IF NOT EXISTS responses "
                    "(image BLOB, occurrence INTEGER, response BLOB, PRIMARY KEY (image, occurrence))"
                )
                yield file
        except (sqlite3.DatabaseError, OSError, ValueError) as e:  # ValueError: a response of half a number
            problem, hint = (
                ("cannot be used", "check free space and permissions")
                if isinstance(e, sqlite3.OperationalError | OSError)
                else ("is damaged", "delete it; its responses must be queried again")
            )
            raise TrainingError(
                f"{printable(self._path, 300)}, which keeps the responses, {problem} ({printable(e)})", hint
            ) from e


_FIND = "SELECT response FROM responses WHERE image = ? AND occurrence = ?"


def _vector(blob: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(blob, np.float32).copy())
