"""Bytes and words at the edge: atomic files, canonical JSON, safe text, progress. May import: errors."""
