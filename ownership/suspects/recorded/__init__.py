"""Recorded representations as suspects. May import: errors, io, encoders, suspect."""
