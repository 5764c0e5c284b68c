"""`python -m benchmarks.main_job`."""

from benchmarks.common.command import main

main("benchmarks.main_job")
