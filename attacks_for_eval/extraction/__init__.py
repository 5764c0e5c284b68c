"""Extraction: query a victim, train a surrogate on its outputs. May import: watermark_training, ownership."""
