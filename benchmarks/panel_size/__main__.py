"""`python -m benchmarks.panel_size`."""

from benchmarks.common.command import main

main("benchmarks.panel_size")
