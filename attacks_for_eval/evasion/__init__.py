"""Evasion: transforms of a surrogate's outputs and weights. May import: extraction and below."""
