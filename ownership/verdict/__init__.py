"""Verdict: from findings to decision, strength and explanations. May import: evidence, keyed, plan and below."""
