"""Bought answers on disk: a SQLite file, because it survives being cut off at any moment and grows in place."""

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

Key = tuple[bytes, int]
"""SHA-256 of an image's bytes, and the how-manieth time it was asked about."""


class AnswerStore:
    """What one victim answered.

    Args:
        path: the file; made with the first answer.
        victim: whose answers these are.

    Raises:
        TrainingError: if the file is damaged or holds another victim's answers.
    """

    def __init__(self, path: Path, victim: str) -> None:
        self._path, self._victim = path, victim
        self._known: set[Key] = set()
        if not path.is_file():
            return
        with self._open() as file:
            names = [str(name) for (name,) in file.execute("SELECT name FROM victim")]
            self._known = {(bytes(image), int(time)) for image, time in file.execute("SELECT image, time FROM answers")}
        if names not in ([], [victim]):
            raise TrainingError(f"{printable(path.name)} holds the answers of another victim", "choose another --out")

    def __len__(self) -> int:
        return len(self._known)

    def images(self) -> set[bytes]:
        """Returns the digests of the images answered."""
        return {digest for digest, _ in self._known}

    def find(self, keys: Sequence[Key]) -> dict[Key, Tensor]:
        """Returns the answers `(d,)` there are to these questions."""
        known = [key for key in keys if key in self._known]
        if not known:
            return {}
        with self._open() as file:
            return {key: _vector(file.execute(_FIND, key).fetchone()[0]) for key in known}

    def add(self, keys: Sequence[Key], responses: Tensor) -> None:
        """Writes answers `(n, d)` down, all or none."""
        rows = responses.float().cpu().contiguous().numpy()
        with self._open() as file:
            file.execute("INSERT INTO victim SELECT ? WHERE NOT EXISTS (SELECT 1 FROM victim)", (self._victim,))
            values = [(*key, row.tobytes()) for key, row in zip(keys, rows, strict=True)]
            file.executemany("INSERT INTO answers VALUES (?, ?, ?)", values)
        self._known.update(keys)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file with its tables; commits at the end, or nothing."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path)) as file, file:
                file.execute("CREATE TABLE IF NOT EXISTS victim (name TEXT)")
                file.execute(
                    "CREATE TABLE IF NOT EXISTS answers "
                    "(image BLOB, time INTEGER, answer BLOB, PRIMARY KEY (image, time))"
                )
                yield file
        except (sqlite3.DatabaseError, OSError, ValueError) as e:  # ValueError: an answer of half a number
            problem, hint = (
                ("cannot be used", "check space and permissions")
                if isinstance(e, sqlite3.OperationalError | OSError)
                else ("is damaged", "delete it; its answers must be bought again")
            )
            raise TrainingError(
                f"{printable(self._path.name)}: the kept answers {problem} ({printable(e)})", hint
            ) from e


_FIND = "SELECT answer FROM answers WHERE image = ? AND time = ?"


def _vector(blob: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(blob, np.float32).copy())
