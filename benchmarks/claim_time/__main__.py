"""`python -m benchmarks.claim_time`."""

from benchmarks.common.command import main

main("benchmarks.claim_time")
