"""Verdict: from findings to decision, strength and explanations. May import: evidence, plan and below."""
