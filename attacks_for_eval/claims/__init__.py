"""What an owner needs attacks for: panels, reference surrogates, claims with both. May import: extraction."""
