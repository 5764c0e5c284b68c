"""`python -m benchmarks.evasion`."""

from benchmarks.common.command import main

main("benchmarks.evasion")
