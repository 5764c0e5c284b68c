"""Recorded representations as suspects. May import: suspect, encoders, io, errors."""
