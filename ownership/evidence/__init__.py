"""Evidence: query representations and compute statistics of them. May import: keyed, watermark and below."""
