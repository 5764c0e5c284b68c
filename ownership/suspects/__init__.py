"""Suspects: open and query models that an adversary may have written. May import: encoders, io, errors."""
