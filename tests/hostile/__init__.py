"""Files, keys and reports that are made to mislead Turnmark."""
