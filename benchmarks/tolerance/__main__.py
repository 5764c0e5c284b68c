"""`python -m benchmarks.tolerance`."""

from benchmarks.common.command import main

main("benchmarks.tolerance")
