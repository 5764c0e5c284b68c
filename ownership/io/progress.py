"""Progress: the callback of long work, and how it is nested."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Callback of long work: (what is being done, steps done, steps in all)."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""


def part(progress: Progress, unit: str, number: int, count: int, name: str = "") -> Progress:
    """Return the progress of one part of work that has several parts, and report its start.

    The part's own reports are passed on with "`unit` `number` of `count`" before their text, and with their own steps:
    nothing is scaled.

    Args:
        progress: of the whole work.
        unit: what one part is called, such as "member".
        number: which part this is, from 1.
        count: how many parts there are.
        name: name of this part, if it has one.

    >>> members = part(lambda *report: print(report), "member", 16, 20, "plain_0")
    ('member 16 of 20, plain_0', 0, 1)
    >>> part(members, "epoch", 2, 9)("training", 3, 8)
    ('member 16 of 20, plain_0: epoch 2 of 9', 0, 1)
    ('member 16 of 20, plain_0: epoch 2 of 9: training', 3, 8)
    """
    label = f"{unit} {number} of {count}" + (f", {name}" if name else "")
    progress(label, 0, 1)

    def report(what: str, done: int, total: int) -> None:
        progress(f"{label}: {what}", done, total)

    return report
