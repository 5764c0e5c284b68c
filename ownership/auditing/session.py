"""A session with a suspect: all probes at once, or in batches. Every query is counted, and a share is repeated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ownership.claims.claim import Claim
from ownership.encoders.images import EncoderLike
from ownership.errors import SuspectFailure
from ownership.evidence.querying import Problem, ProblemCode, n_repeats, query, response_problems
from ownership.evidence.responses import Responses


class SuspectSession:
    """The queries made to one encoder so far, and its responses.

    Args:
        encoder: The encoder to query.
        claim: The claim whose probes are sent.
        name: The encoder's name, for messages.

    Attributes:
        responses: Its representations of the probes sent so far.
        problems: Why they cannot be tested; empty if they can.
        queries: Number of queries made, repeated queries included.
    """

    def __init__(self, encoder: EncoderLike, claim: Claim, name: str) -> None:
        self._encoder, self._claim = encoder, claim
        self.responses = Responses(name, {})
        self.problems: list[Problem] = []
        self.queries = 0

    @property
    def dim(self) -> int | None:
        """Length of the representations; None before the first response."""
        return self.responses.dim if self.responses.sets else None

    def query_all(self) -> None:
        """Send every probe that was not sent before."""
        self.query({name: len(images) for name, images in self._claim.probes.items()})

    def query(self, sizes: dict[str, int]) -> None:
        """Send the first probes of each named set, except those that were sent before.

        A share of all probes sent so far is repeated, shuffled and in other batches: as many as `repeat_share` of the
        new ones.

        Args:
            sizes: Name of a probe set -> number of its probes.

        Raises:
            SuspectError: If the encoder cannot take the images.
        """
        have = {name: len(rows) for name, rows in self.responses.sets.items()}
        probes = self._claim.probes
        new = {name: probes[name][have.get(name, 0) : n] for name, n in sizes.items() if n > have.get(name, 0)}
        if not new:
            return
        try:
            received = query(self._encoder, new, self.responses.name)
        except SuspectFailure as e:  # it crashed or hung: a finding about the suspect, not a failure of the audit
            self.problems = [*self.problems, _failure(e)]
            return
        sets = dict(self.responses.sets)
        for name, rows in received.sets.items():
            sets[name] = np.concatenate([sets[name], rows]) if name in sets else rows
        self.responses = Responses(self.responses.name, {name: sets[name] for name in probes if name in sets})
        count = n_repeats(sum(map(len, new.values())), self._claim.plan)
        sent = {name: probes[name][: len(rows)] for name, rows in self.responses.sets.items()}
        complete = len(self.responses.sets["public"]) == len(probes["public"])
        plan = self._claim.plan if complete else replace(self._claim.plan, min_probes=0)  # interim: fewer are allowed
        try:
            self.problems = response_problems(self.responses, self._encoder, sent, plan, again=count)
        except SuspectFailure as e:
            self.problems = [_failure(e)]
        self.queries += sum(map(len, new.values())) + count


def _failure(e: SuspectFailure) -> Problem:
    return Problem(code=ProblemCode.FAILED, detail=e.message)


def queries(claim: Claim) -> tuple[int, int | None]:
    """Return how many queries an audit makes, repeats included, and how many until the first interim analysis."""
    probes = sum(map(len, claim.probes.values()))
    return probes + n_repeats(probes, claim.plan), min(claim.plan.interim_queries, default=None)
