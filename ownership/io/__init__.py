"""Input and output: atomic files, canonical JSON, printable text, progress, checks, lazy names. May import: errors."""
