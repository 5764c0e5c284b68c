"""Model-extraction attacks, to find out what a claim can detect: `extraction`, `losses`, `reference`, `demo`."""
