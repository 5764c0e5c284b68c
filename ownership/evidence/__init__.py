"""Evidence: query representations and compute statistics of them. May import: watermark and below."""
