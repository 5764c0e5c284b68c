"""`python -m benchmarks.development`."""

from benchmarks.common.command import main

main("benchmarks.development")
