"""`python -m benchmarks.verdicts`."""

from benchmarks.common.command import main

main("benchmarks.verdicts")
