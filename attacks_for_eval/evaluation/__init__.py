"""Evaluation: error rates over a grid of surrogates and independent encoders. May import: every other room here."""
