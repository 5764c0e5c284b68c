"""`python -m benchmarks.audit_time`."""

from benchmarks.common.command import main

main("benchmarks.audit_time")
