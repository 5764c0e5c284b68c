"""Sealing: sign, verify, redact, disclose a claim. May import: claims, keyed, attestation, encoders, io, errors."""
