"""Claims: what an owner fixes before a dispute, built, stored, read. May import: evidence, attestation and below."""
