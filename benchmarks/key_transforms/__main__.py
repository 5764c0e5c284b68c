"""`python -m benchmarks.key_transforms`."""

from benchmarks.common.command import main

main("benchmarks.key_transforms")
