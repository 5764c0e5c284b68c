"""Extraction: query a victim, train a surrogate on its outputs. May import: choices, watermark_training, ownership."""
