"""Reports: the document of an audit; all its sentences are made here. May import: verdict, attestation, claims, below."""
