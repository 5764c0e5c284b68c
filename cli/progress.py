"""Progress on stderr: a bar on a terminal, plain lines without one.

Without a terminal a line is printed at most every 10 s, and at least every 20 s even if nothing moved, so that a log
shows that the work goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ownership.io.text import printable

BETWEEN = 10.0
"""Seconds between two lines, while the work moves."""
SILENCE = 20.0
"""Longest silence in seconds, when nothing moves."""


class Shown:
    """What long work calls: `(what, done, total)`. Keeps the line that says where the work is."""

    def __init__(self, what: str = "starting") -> None:
        self.line, self.fraction = what, 0.0
        self._changed: Callable[[], None] = lambda: None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Record that `done` of `total` are done."""
        self.fraction = done / max(1, total)
        self.line = printable(what, 200) + (f", {done} of {total}" if total > 1 else "")
        self._changed()

    def on_change(self, call: Callable[[], None]) -> None:
        """Call this after every record."""
        self._changed = call


@contextmanager
def progress(console: Console, what: str = "starting", *, quiet_since: float | None = None) -> Iterator[Shown]:
    """Show progress while the work inside calls what is yielded.

    Args:
        console: on stderr.
        what: what is done before the first call.
        quiet_since: when the last line was printed, on the clock of `time.monotonic`; now if None.
    """
    shown = Shown(what)
    with _bar(console, shown) if console.is_terminal else _lines(console, shown, quiet_since):
        yield shown


@contextmanager
def _bar(console: Console, shown: Shown) -> Iterator[None]:
    columns = [TextColumn("{task.description}", markup=False), BarColumn(bar_width=20)]
    columns += [TimeElapsedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(shown.line, total=1.0)
        shown.on_change(lambda: bar.update(task, description=shown.line, completed=shown.fraction))
        yield


@contextmanager
def _lines(console: Console, shown: Shown, quiet_since: float | None) -> Iterator[None]:
    start = time.monotonic()
    last = start if quiet_since is None else quiet_since
    lock, ended = threading.Lock(), threading.Event()

    def say(after: float) -> None:
        nonlocal last
        with lock:
            now = time.monotonic()
            if now - last >= after and not ended.is_set():
                last = now
                console.print(f"{shown.line} ({now - start:.0f} s)", markup=False, soft_wrap=True)

    def watch() -> None:
        while not ended.wait(1.0):
            say(SILENCE - 1)

    shown.on_change(lambda: say(BETWEEN))
    watcher = threading.Thread(target=watch, name="turnmark progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
