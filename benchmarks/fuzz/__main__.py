"""`python -m benchmarks.fuzz`."""

from benchmarks.common.command import main

main("benchmarks.fuzz")
