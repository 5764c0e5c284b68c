"""Claims: what an owner fixes before a dispute. May import: evidence, keyed, attestation and below."""
