"""Defences of an API against extraction, which the benchmarks compare with a claim. May import: extraction.

- `similarity`: noise on the responses to queries that resemble earlier ones (`SimilarityNoiseBlackBox`).
- `detection`: measures of an account's query history that may show an extraction (`HistoryMonitor`, `alarms`).

No command of `turnmark` uses them. docs/attacks.md says what each one achieved in our runs.
"""
