"""Sealing: sign a claim, verify it, show parts of it. May import: claims, attestation, encoders, errors, io."""
