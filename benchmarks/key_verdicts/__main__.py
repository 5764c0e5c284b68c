"""`python -m benchmarks.key_verdicts`."""

from benchmarks.common.command import main

main("benchmarks.key_verdicts")
