"""What is made once for all test processes of a run: training twice what two processes need would cost minutes."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from filelock import FileLock

Made = TypeVar("Made")


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Made]) -> Made:
    """Return what `make(folder)` returns, made by the first process that asks; the others read it.

    Args:
        factory: pytest's; the folder lies where all its processes see it. Nothing changes a shared folder afterwards.
        name: of the folder; one for each thing made.
        make: what is called with an empty folder. Its result is pickled.
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared" / name
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "made.pickle"
    with FileLock(folder / "made.lock"):
        if not made.exists():
            content = pickle.dumps(make(folder))
            made.write_bytes(content)
    result: Made = pickle.loads(made.read_bytes())
    return result
