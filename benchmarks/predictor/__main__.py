"""`python -m benchmarks.predictor`."""

from benchmarks.common.command import main

main("benchmarks.predictor")
