"""`python -m benchmarks.gpu`."""

from benchmarks.common.command import main

main("benchmarks.gpu")
