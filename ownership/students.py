"""The turned reading beside what a student of an independent encoder would show (docs/adr/0024).

Somebody may have taught an encoder of his own to answer alike however an image is turned, from a teacher that has
nothing to do with the victim. Its mean answers to turned images are as good as a teacher's to upright ones, and those
resemble the victim's more than the mean answers of any encoder in a panel do, which turning spoils. Nobody has to
train such students for a panel: what a perfect one would answer is in it already, every member's upright answers. And
how good a student the suspect is, is seen from its likeness to the members: the victim has to stand out from them by
more than it does for the members' own perfect students.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ownership.answers import Answers, Context, NotApplicable
from ownership.similarity import Array, covariance, given_others, precision
from ownership.stats import fisher_z

LEAST = 0.005
"""Mean likeness to a stratum that counts at least: less is noise, and a ratio to it could be anything."""


@dataclass(frozen=True, slots=True)
class _Normal:
    """Mean and standard deviation of a stratum's scores."""

    mean: float
    sd: float

    def standardised(self, value: float) -> float:
        return (value - self.mean) / self.sd


def _normal(values: list[float]) -> _Normal:
    sd = float(np.std(values, ddof=1))
    if not sd > 1e-9:
        raise NotApplicable("all members of a stratum have the same score")
    return _Normal(float(np.mean(values)), sd)


class _Reading:
    """Likeness among upright structures (0: the victim's; 1 to n: the members') and turned ones (n + k: member k's)."""

    def __init__(self, context: Context, *suspect: Answers) -> None:
        plan, self.n = context.plan, len(context.panel)
        structures = [a.rsa_upright(plan) for a in (context.victim, *context.panel)]
        structures += [a.rsa_turned(plan) for a in (*context.panel, *suspect)]
        cov = covariance(structures)
        if not np.diag(cov).min() > 0:
            raise NotApplicable("a similarity structure is constant")
        self.precision: Array = precision(cov)
        self.suspect = 2 * self.n + 1

    def likeness(self, of: int, to: int) -> float:
        """Fisher z of the partial correlation of two structures given all but the other reading of the same encoders.

        Of a suspect: `of` is `self.suspect`.
        """
        twins = [k + self.n if k <= self.n else k - self.n for k in (of, to) if k not in (0, self.suspect)]
        return fisher_z(given_others(self.precision, of, to, twins))

    def ratio(self, of: int, members: list[int]) -> float:
        """Likeness to the victim in units of the mean likeness to members of one stratum, itself left out."""
        others = float(np.mean([self.likeness(of, k) for k in members if k != of]))
        return self.likeness(of, 0) / max(others, LEAST)


def _strata(context: Context) -> dict[str, list[int]]:
    """Stratum -> numbers of its members, from 1; of the strata with enough of them."""
    if len(context.strata) != len(context.panel):
        raise NotApplicable("the panel's strata are not known")
    found = {s: [i + 1 for i, of in enumerate(context.strata) if of == s] for s in dict.fromkeys(context.strata)}
    found = {s: members for s, members in found.items() if len(members) >= context.plan.min_stratum}
    if not found:
        raise NotApplicable(f"no stratum has {context.plan.min_stratum} members")
    return found


def turned_relative(suspect: Answers, context: Context) -> float:
    """By how many standard deviations the suspect's turned answers are likelier the victim's than an innocent's are.

    The least over the panel's strata and two kinds of innocents: a member itself (the partial correlation of its mean
    answers to turned images with the victim's answers to upright ones), and a student of an encoder like it (the same,
    divided by the mean correlation with the stratum's members; the members' own values are those of perfect students,
    their upright answers). Given are the answers of the rest of the panel, of both kinds.

    Args:
        suspect: answers with the sets `public` and `turned`.
        context: with the panel's strata.

    Raises:
        NotApplicable: if a set is missing, or no stratum is large enough.
    """
    members, read = _Reading(context), _Reading(context, suspect)
    stolen, found = read.likeness(read.suspect, 0), []
    for group in _strata(context).values():
        innocent = _normal([members.likeness(members.n + i, 0) for i in group])
        student = _normal([members.ratio(i, group) for i in group])
        found += [innocent.standardised(stolen), student.standardised(read.ratio(read.suspect, group))]
    return min(found)


def members_turned_relative(context: Context) -> dict[str, float]:
    """Returns every member's score as its own perfect student, in standard deviations of its stratum."""
    members = _Reading(context)
    out: dict[str, float] = {}
    for group in _strata(context).values():
        ratios = {i: members.ratio(i, group) for i in group}
        student = _normal(list(ratios.values()))
        out |= {context.panel[i - 1].name: student.standardised(ratio) for i, ratio in ratios.items()}
    return out
