"""A pytest plugin that keeps the tests quick: a budget of CPU seconds, and a check that light tests are light.

The call of an unmarked test has 5 s of CPU time, child processes included; one marked `heavy` has 20 s, one marked
`slow` any. CPU time, because a busy machine must not fail a test; fixtures are not counted, because other tests share
them. The budget grows with a factor: how much slower than the reference machine this one runs a small workload, or
TURNMARK_TEST_FACTOR. A test above its budget is named at the end; above twice its budget it fails. Between the two lies
what the time of the same test varies by.

`make test-fast` leaves out what is marked `slow` or `heavy`. A test that starts a Python process (a sandbox is one) or
trains must be `heavy`. Tests that ask for a heavy fixture and those in heavy folders are marked here; others mark
themselves, and fail where they forgot. Workers of joblib are not seen: which test starts them hangs on the order.

`--cpu N` prints the N tests and fixtures that took most CPU time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.sampling import IN_FULL

SECONDS, HEAVY_SECONDS = 5.0, 20.0
MARGIN = 2.0
"""Multiple of the budget above which a test fails."""
HEAVY_FIXTURES = frozenset({"job", "keyed_job", "trained", "audit_hostile"})
HEAVY_FOLDERS = ("tests/cli", "tests/end_to_end", "tests/hostile")
STEPS = 50
"""Steps of an optimizer that a light test may take: below, a loss is checked; above, something is trained."""

SMALLER = "make it smaller, share what it makes in a fixture, or mark it slow"

REFERENCE = 0.06
"""CPU seconds of `workload` on the reference machine (one core of an AMD EPYC with AVX-512)."""

RECURSION_LIMIT = 5000
"""The highest limit that a test may leave; the C stack of the main thread overflows near 50,000 levels of JSON."""

TESTS = Path(__file__).resolve().parents[2]


class Effort:
    """What the tests of this process have done so far."""

    def __init__(self) -> None:
        self.python_processes, self.optimizer_steps = 0, 0

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count processes: an audit hook of Python."""
        python = event == "subprocess.Popen" and Path(os.fsdecode(arguments[0] or "")).name.startswith("python")
        self.python_processes += python or event == "os.fork"

    def step(self, *_: object) -> None:
        """Count steps: a hook of every optimizer of torch."""
        self.optimizer_steps += 1


EFFORT = Effort()


def running(pid: int | str = "self") -> dict[str, float]:
    """Descendants of a process that still run -> their CPU seconds, as Linux counts them; elsewhere none."""
    found: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it ended just now
            for child in task.read_text().split():
                ticks = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:15]
                found |= {child: sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")} | running(child)
    return found


def cpu_seconds() -> float:
    """CPU time of this process and its descendants so far."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system + sum(running().values())


def workload() -> float:
    """Return the CPU seconds that a few training steps of a small convolutional network take."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Flatten(), nn.LazyLinear(16))
        images = torch.ones(64, 3, 16, 16)
        net(images).sum().backward()
        start = time.process_time()
        for _ in range(10):
            net(images).square().sum().backward()
        return time.process_time() - start


def factor() -> float:
    """Return how many times the budget is: at least 1, measured unless TURNMARK_TEST_FACTOR names it."""
    named = os.environ.get("TURNMARK_TEST_FACTOR")
    return float(named) if named else max(1.0, min(workload() for _ in range(3)) / REFERENCE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu", type=int, default=0, metavar="N", help="print the N tests that took most CPU time")


def pytest_configure(config: pytest.Config) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    sys.addaudithook(EFFORT.hook)
    register_optimizer_step_post_hook(EFFORT.step)
    os.environ.setdefault("TURNMARK_TEST_FACTOR", f"{factor():.2f}")  # the processes of xdist inherit it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("sampled")
        folder = item.path.relative_to(TESTS).as_posix() if item.path.is_relative_to(TESTS) else ""
        heavy = not HEAVY_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
        if heavy or folder.startswith(HEAVY_FOLDERS):
            item.add_marker("heavy")


def measured(item: pytest.Item, phase: str) -> Generator[None, object, object]:
    """Run a phase of a test; note what it took."""
    cpu, wall = cpu_seconds(), time.monotonic()
    processes, steps = EFFORT.python_processes, EFFORT.optimizer_steps
    result = yield
    took = cpu_seconds() - cpu
    item.user_properties.append((f"cpu {phase}", took))
    item.user_properties.append((f"wall {phase}", time.monotonic() - wall))
    if sys.getrecursionlimit() > RECURSION_LIMIT:
        sys.setrecursionlimit(1000)
        pytest.fail("raises the recursion limit: then nested JSON overflows the C stack, not Python's", pytrace=False)
    if item.get_closest_marker("slow") or IN_FULL:
        return result
    seconds = HEAVY_SECONDS if item.get_closest_marker("heavy") else SECONDS
    if phase == "call" and took > seconds * factor():
        said = f"took {took:.1f} s of CPU time; a test has {seconds:.0f} s (here x {factor():.1f}): {SMALLER}"
        item.user_properties.append(("over budget", said))
        if took > MARGIN * seconds * factor():
            pytest.fail(said, pytrace=False)
    if not item.get_closest_marker("heavy"):
        if EFFORT.python_processes > processes:
            pytest.fail("starts a Python process: mark it heavy, `make test-fast` leaves it out", pytrace=False)
        if EFFORT.optimizer_steps > steps + STEPS:
            pytest.fail("trains: mark it heavy, `make test-fast` leaves it out", pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from measured(item, "setup"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from measured(item, "call"))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what took more than its budget and, on request, most CPU time, whichever process ran it."""
    rows = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "teardown":
                found = dict(report.user_properties)
                phases = [p for p in ("setup", "call") if f"cpu {p}" in found]
                rows += [(found[f"cpu {p}"], found[f"wall {p}"], p, report.nodeid) for p in phases]
                if "over budget" in found:
                    terminalreporter.write_line(f"{report.nodeid} {found['over budget']}")
    if not (most := config.getoption("--cpu")):
        return
    terminalreporter.section(f"most CPU time, of {sum(r[0] for r in rows):.0f} s in all")
    for cpu, wall, phase, name in sorted(rows, reverse=True)[:most]:
        terminalreporter.write_line(f"{cpu:7.1f} s CPU {wall:7.1f} s wall  {phase:5}  {name}")
