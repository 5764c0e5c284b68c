"""`python -m benchmarks.paper`."""

from benchmarks.common.command import main

main("benchmarks.paper")
