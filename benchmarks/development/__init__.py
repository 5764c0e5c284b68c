"""Which statistics should decide a verdict? Candidates compared on development models."""
