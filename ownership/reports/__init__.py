"""Reports: the document of an audit; every sentence is made here. May import: verdict, attestation, claims and below."""
