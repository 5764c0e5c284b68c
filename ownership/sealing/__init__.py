"""Sealing: sign a claim, verify it, show parts of it to others. May import: claims, attestation, encoders, errors, io."""
