"""Parallel map through joblib with an argument that all tasks share.

The shared argument is written to a file once, and each process reads it once. joblib would send it with every task: an
evaluation's images are hundreds of megabytes, and pickling them took longer than training a small encoder.
"""

from __future__ import annotations

import pickle
import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import joblib

from ownership.io.files import write_bytes
from ownership.io.tasks import InFolder

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")


def parallel_map(
    function: Callable[[Shared, Task], Result],
    shared: Shared,
    tasks: Iterable[Task],
    *,
    folder: Path,
    jobs: int = 1,
) -> Iterator[Result]:
    """Yield `function(shared, task)` for every task, in the order in which they end.

    Args:
        function: takes `shared` and a task.
        shared: what every task needs; its class must lie in a module that other processes can import.
        tasks: small; they are sent to the processes.
        folder: that all processes can read; `shared` is kept there, with mode 0600, until the last task has ended.
        jobs: parallel processes (joblib's `n_jobs`; its default backend, or the one of `joblib.parallel_config`).
    """
    path = folder / f".shared-{secrets.token_hex(8)}"
    write_bytes(path, pickle.dumps(shared), secret=True)
    try:
        run = joblib.delayed(InFolder(_run))
        work = (run(function, path, task) for task in tasks)
        yield from joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(work)
    finally:
        path.unlink(missing_ok=True)


def _run(function: Callable[[Shared, Task], Result], path: Path, task: Task) -> Result:
    return function(_read(path), task)


@lru_cache(maxsize=1)
def _read(path: Path) -> Any:
    # written by parallel_map in this run
    return pickle.loads(path.read_bytes())  # noqa: S301
