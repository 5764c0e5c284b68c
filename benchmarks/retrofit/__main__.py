"""`python -m benchmarks.retrofit`."""

from benchmarks.common.command import main

main("benchmarks.retrofit")
