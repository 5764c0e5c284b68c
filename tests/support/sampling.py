"""How much is tried: a sample in `make check`, everything in `make slow`.

What generates cases (hypothesis, simulations, tables of tampering) takes its number from here and is marked `sampled`;
`make slow` sets TURNMARK_TESTS_IN_FULL and runs it once more.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from hypothesis import HealthCheck, settings

T = TypeVar("T")

IN_FULL = bool(os.environ.get("TURNMARK_TESTS_IN_FULL"))


def number(in_full: int, sample: int) -> int:
    """Return how many cases are tried now."""
    return in_full if IN_FULL else sample


def sample(cases: Iterable[T], every: int, start: int = 0) -> Iterator[T]:
    """Yield all cases in full, otherwise each `every`-th from number `start` on."""
    return iter(cases) if IN_FULL else islice(cases, start, None, every)


def examples(in_full: int) -> settings:
    """Return hypothesis's settings: that many examples in full, a quarter in `make check`."""
    return settings(
        max_examples=number(in_full, max(10, in_full // 4)),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
