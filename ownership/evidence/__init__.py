"""Evidence: representations, and statistics of them. May import: errors, io, encoders, plan, stats, watermark."""
