"""`python -m benchmarks.key_imagenet`."""

from benchmarks.common.command import main

main("benchmarks.key_imagenet")
