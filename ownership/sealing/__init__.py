"""Sealing: sign, verify, redact, disclose a claim. May import: claims, attestation, encoders, io, errors."""
