"""Evasion: transforms of a surrogate's outputs and weights. May import: watermark_training, ownership."""
