"""Evasion: transforms that an attacker applies to a surrogate or to its outputs. May import: watermark_training, ownership."""
