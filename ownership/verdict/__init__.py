"""Verdict: from numbers to decision, strength and alternatives. May import: errors, io, evidence, plan, stats."""
