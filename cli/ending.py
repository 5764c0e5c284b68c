"""How a command ends before its time: asked to by a signal, or because the reader of its output has left."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TextIO

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What timeout(1), service managers, batch systems and closed terminals send; Windows has no SIGHUP."""


class Ending:
    """Which signal has ended the command; none so far."""

    received: int | None = None

    @property
    def exit_code(self) -> int:
        """128 and the number of the signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.received or signal.SIGINT)


@contextmanager
def heeding_signals() -> Iterator[Ending]:
    """Make SIGTERM and SIGHUP end a command as Ctrl-C does, so that private copies are removed and work is kept."""
    ending = Ending()

    def end(number: int, _: FrameType | None) -> None:
        ending.received = number
        for other in heeded:  # timeout(1) sends its signal twice; the second must not cut the cleaning up short
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()  # no other thread may set handlers
    # what is ignored stays ignored, as under nohup
    before = {s: signal.getsignal(s) for s in SIGNALS if in_main and signal.getsignal(s) == signal.SIG_DFL}
    heeded = tuple(before)
    for number in heeded:
        signal.signal(number, end)
    try:
        yield ending
    finally:
        for number in () if ending.received else heeded:
            signal.signal(number, before[number])


def drop_output(stream: TextIO) -> None:
    """Let what is still written to a stream vanish, now that its reader has left; the command goes on to its end.

    Its result, and so its exit code, is the same whether or not anyone reads all of its output.
    """
    with suppress(OSError, ValueError):  # a stream of a test has no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
