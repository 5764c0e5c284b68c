"""Reports: the document of an audit and its sentences. May import: verdict, claims, evidence, keyed and below."""
