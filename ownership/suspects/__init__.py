"""Suspects: open and query what an adversary may have written. May import: errors, io, encoders; no claim, no key."""
