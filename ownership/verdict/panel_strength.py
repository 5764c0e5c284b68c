"""Whether the panel's members are as strong as the victim (docs/statistics.md, "The strength of the panel")."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from ownership.plan import REQUIRED_STRATA


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelStrength:
    """How well each panel member agrees with the victim about which probes are alike, beside untrained baselines.

    Against a panel of encoders weaker than the victim, every good encoder looks like a copy. A member is strong if it
    agrees with the victim better than every baseline does, each time beyond the other baselines
    (`ownership.evidence.neighbours`).
    """

    probes: int  # public probes that were used
    baselines: dict[str, float]  # baseline -> its agreement with the victim, beyond the other baselines
    members: dict[str, dict[str, dict[str, float]]]  # stratum -> member -> baseline -> agreement beyond the others

    def leads(self, stratum: str) -> dict[str, float]:
        """Return by how much each member of a stratum exceeds the baseline that comes closest to it."""
        return {
            name: min(found[b] - own for b, own in self.baselines.items())
            for name, found in self.members[stratum].items()
        }

    def strong(self, stratum: str) -> int:
        """Return how many members of a stratum are strong."""
        return sum(lead > 0 for lead in self.leads(stratum).values())

    def counts(self, strata: Iterable[str]) -> dict[str, dict[str, float]]:
        """Return of each of these strata its number of strong members, of members, and their median lead."""
        return {
            s: {"strong": self.strong(s), "members": len(leads), "median_lead": median(leads.values())}
            for s in strata
            for leads in (self.leads(s),)
        }

    @property
    def weak_strata(self) -> tuple[str, ...]:
        """The required strata of which fewer than half of the members are strong."""
        present = [s for s in REQUIRED_STRATA if s in self.members]
        return tuple(s for s in present if 2 * self.strong(s) < len(self.members[s]))
