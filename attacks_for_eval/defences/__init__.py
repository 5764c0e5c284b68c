"""Defences of an API, for comparison: similar queries, extraction detection. May import: extraction."""
