"""Preparation: data sets and public encoders that other benchmarks read."""
