"""Progress: what long work calls as it goes."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""What long work calls as it goes: (what is being done, steps done, steps in all)."""


def silent(_what: str, _done: int, _total: int) -> None:
    """The progress that shows nothing."""
