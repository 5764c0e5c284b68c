"""Attestation: keys, signed envelopes, Merkle trees, timestamps; knows no claim and no report. May import: errors, io."""
