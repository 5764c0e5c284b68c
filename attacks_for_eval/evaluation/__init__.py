"""Evaluation: error rates over a grid of surrogates and independent encoders. May import: claims, evasion and below."""
