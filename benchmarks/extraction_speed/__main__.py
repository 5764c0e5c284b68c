"""`python -m benchmarks.extraction_speed`."""

from benchmarks.common.command import main

main("benchmarks.extraction_speed")
