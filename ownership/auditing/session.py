"""Asking a suspect: look by look or all at once, every query counted, a share of them asked twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ownership.claims.claim import Claim
from ownership.encoders.images import EncoderLike
from ownership.errors import SuspectFailure
from ownership.evidence.querying import query, repeats, response_problems
from ownership.evidence.responses import Responses


class SuspectSession:
    """What a suspect has been asked so far, and what it answered.

    Args:
        encoder: the suspect.
        claim: whose probes.
        name: for messages.
    """

    def __init__(self, encoder: EncoderLike, claim: Claim, name: str) -> None:
        self._encoder, self._claim = encoder, claim
        self.responses = Responses(name, {})
        self.problems: list[str] = []  # why the answers cannot be tested
        self.queries = 0  # answers given, repeats included

    def query(self, sizes: dict[str, int]) -> None:
        """Asks the first so many probes of each named set, but those that were asked before.

        A share of all probes asked so far is asked again, shuffled and in other batches: as many as `repeat_share` of
        the new ones.

        Raises:
            SuspectError: if the suspect cannot take the images.
        """
        have = {name: len(rows) for name, rows in self.responses.sets.items()}
        probes = self._claim.probes
        new = {name: probes[name][have.get(name, 0) : n] for name, n in sizes.items() if n > have.get(name, 0)}
        if not new:
            return
        try:
            answered = query(self._encoder, new, self.responses.name)
        except SuspectFailure as e:  # it died or hung: a finding about it, no failure of ours
            self.problems = [*self.problems, e.message]
            return
        sets = dict(self.responses.sets)
        for name, rows in answered.sets.items():
            sets[name] = np.concatenate([sets[name], rows]) if name in sets else rows
        self.responses = Responses(self.responses.name, {name: sets[name] for name in probes if name in sets})
        count = repeats(sum(map(len, new.values())), self._claim.plan)
        session = {name: probes[name][: len(rows)] for name, rows in self.responses.sets.items()}
        whole = len(self.responses.sets["public"]) == len(probes["public"])
        plan = self._claim.plan if whole else replace(self._claim.plan, min_probes=0)  # a look may be smaller
        try:
            self.problems = response_problems(self.responses, self._encoder, session, plan, again=count)
        except SuspectFailure as e:
            self.problems = [e.message]
        self.queries += sum(map(len, new.values())) + count


def queries(claim: Claim) -> tuple[int, int | None]:
    """Returns how many answers an audit asks for, repeats included, and after how many the first look may end it."""
    probes = sum(map(len, claim.probes.values()))
    return probes + repeats(probes, claim.plan), min(claim.interim_scores, default=None)
