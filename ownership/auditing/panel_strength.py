"""The strength of a claim's panel: whether its members are encoders like the victim, measured on the public probes."""

from __future__ import annotations

from ownership.claims.claim import Claim
from ownership.evidence.neighbours import Neighbours, agreements, nearest_neighbours
from ownership.keyed.baselines import baselines_without_key
from ownership.verdict.panel_strength import PanelStrength

PROBES = 400
"""Public probes that are used, the first ones of the claim."""


def panel_strength(claim: Claim) -> PanelStrength | None:
    """Return how well each panel member agrees with the victim, beside untrained baselines; None without a panel.

    Everything follows from what the claim holds. No number of it is the owner's to choose.
    """
    if not claim.members:
        return None
    probes = claim.probes["public"][:PROBES]
    baselines = {name: nearest_neighbours(x) for name, x in baselines_without_key(probes).items()}
    victim = _neighbours(claim, claim.victim.name, len(probes))
    own = {name: agreements(victim, x, baselines)[name] for name, x in baselines.items()}
    members: dict[str, dict[str, dict[str, float]]] = {}
    for m in claim.members:
        found = agreements(victim, _neighbours(claim, m.name, len(probes)), baselines)
        members.setdefault(m.kind, {})[m.name] = found
    return PanelStrength(probes=len(probes), baselines=own, members=members)


def _neighbours(claim: Claim, name: str, n: int) -> Neighbours:
    return nearest_neighbours(claim.responses[name].get("public")[:n])
