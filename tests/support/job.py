"""What the fixtures `job` and `keyed_job` of the tests hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attacks_for_eval.demo import JobConfig, Row


@dataclass(frozen=True)
class Job:
    """The main job at a size for tests: a folder as `turnmark demo` leaves it, and its rows."""

    folder: Path
    config: JobConfig
    rows: list[Row]
