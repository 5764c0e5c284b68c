"""`python -m benchmarks.training`."""

from benchmarks.common.command import main

main("benchmarks.training")
