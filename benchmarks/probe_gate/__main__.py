"""`python -m benchmarks.probe_gate`."""

from benchmarks.common.command import main

main("benchmarks.probe_gate")
