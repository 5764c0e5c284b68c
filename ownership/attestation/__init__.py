"""Attestation: keys, signed envelopes, Merkle trees, timestamps, of anything. May import: errors, io."""
