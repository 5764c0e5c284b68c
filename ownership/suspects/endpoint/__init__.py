"""Endpoints: HTTP APIs as suspects, and the transcript of their answers. May import: suspect, encoders, io, errors."""
