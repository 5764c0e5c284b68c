"""Tasks for other processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class InFolder:
    """A function that runs in the working directory of the process that made it.

    Worker processes are kept and used again (joblib), so theirs may be an earlier one: a relative path would then name
    another file. On another machine without that folder, only absolute paths work.

    Attributes:
        function: what is called.
        folder: the working directory.
    """

    function: Callable[..., Any]
    folder: Path = field(default_factory=Path.cwd)

    def __call__(self, *args: object) -> Any:
        """Return what the function returns."""
        with suppress(FileNotFoundError):
            os.chdir(self.folder)
        return self.function(*args)
