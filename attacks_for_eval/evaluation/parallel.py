"""Work for many processes, through joblib; what all of it needs is written once and read once by each process.

joblib would send it with every task: the images of an evaluation are hundreds of megabytes, and to pack and unpack
them took longer than to train a small encoder.
"""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import joblib

from ownership.io.files import write_bytes

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")


def spread(
    function: Callable[[Shared, Task], Result],
    shared: Shared,
    tasks: Iterable[Task],
    *,
    folder: Path,
    jobs: int = 1,
) -> Iterator[Result]:
    """Yields `function(shared, task)` for every task, as they end.

    Args:
        function: of the shared thing and a task.
        shared: what every task needs, of a module that other processes can import: no script's own class.
        tasks: small.
        folder: that all processes see; `shared` lies there until the last task has ended, readable by its owner only.
        jobs: processes at a time (joblib's `n_jobs`; its default backend, or the one of `joblib.parallel_config`).
    """
    path = folder / f".shared-{secrets.token_hex(8)}"
    write_bytes(path, pickle.dumps(shared), secret=True)
    try:
        work = (joblib.delayed(_run)(function, path, task) for task in tasks)
        yield from joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(work)
    finally:
        path.unlink(missing_ok=True)


def _run(function: Callable[[Shared, Task], Result], path: Path, task: Task) -> Result:
    return function(_read(path), task)


@lru_cache(maxsize=1)
def _read(path: Path) -> Shared:  # type: ignore[type-var]
    # ours, written a moment ago
    return pickle.loads(path.read_bytes())  # type: ignore[no-any-return]  # noqa: S301
