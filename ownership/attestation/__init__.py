"""Attestation: keys, signed envelopes, Merkle trees and timestamps for any content. May import: io, errors."""
