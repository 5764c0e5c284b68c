"""What the benchmarks share: rows, the command line, Markdown tables, speed measurements."""
