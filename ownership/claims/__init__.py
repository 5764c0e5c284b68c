"""Claims: build, store and read what an owner fixes before a dispute. May import: evidence, attestation and below."""
