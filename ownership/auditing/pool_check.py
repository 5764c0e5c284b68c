"""What an audit asks of the key's pool: other images before any probe, and probes and other images together after them.

A gate that looks at one image at a time is found by the test of the pool. One that looks at the rest of the batch, or
remembers earlier queries, answers the same image differently later, which is found by asking it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ownership.claims.claim import Claim
from ownership.errors import ClaimError, SuspectError
from ownership.evidence.pool_test import LEAST, MOST, PERMUTATIONS, classifier_features, pool_test
from ownership.evidence.querying import Problem, ProblemCode, query, relative_difference
from ownership.evidence.responses import Responses
from ownership.keyed.key import Key
from ownership.keyed.pool import check_pool, in_channels
from ownership.suspects.suspect import Suspect
from ownership.verdict.findings import Findings
from ownership.verdict.results import PoolTest

Array = NDArray[np.float32]

DIFFERENT = (
    "the same images of the pool, asked before and after the probes, get different responses: the suspect is random, "
    "stateful or depends on the batch, as a gate does that remembers having seen a probe"
)


def check_pool_of(claim: Claim, images: Tensor) -> Key:
    """Return the key of a claim, if these are the images of its pool, and enough of them are no probes.

    Raises:
        ClaimError: If not.
    """
    if claim.material is None:
        raise ClaimError("this claim has no key, so its probes are of no pool", "leave the pool out")
    key = claim.material.key
    check_pool(key, images)
    if (others := key.pool.images - key.probes) < LEAST:
        raise ClaimError(
            f"the key draws {key.probes} of the {key.pool.images} images of its pool as probes: {others} are left",
            f"the test of the pool needs {LEAST} other images",
        )
    return key


class PoolCheck:
    """The questions about the pool in one audit, and what follows from the answers.

    Args:
        claim: The claim, with a key.
        images: `(n, c, h, w)` uint8, all images of the pool in their order.
        seed: Draws which images are asked and in which order. The suspect's operator must not know it before.

    Raises:
        ClaimError: If these are other images.
    """

    def __init__(self, claim: Claim, images: Tensor, seed: int) -> None:
        key = check_pool_of(claim, images)
        self._tolerance, self._random = claim.plan.repeat_tolerance, np.random.default_rng(seed)
        order = np.asarray(key.pool_order())
        self._probes = self._random.permutation(key.probes)[:MOST]  # positions among the claim's public probes
        self._others = self._random.permutation(order[key.probes :])[:MOST]
        self._drawn = order[: key.probes][self._probes]
        self._images = in_channels(images, key.pool.shape[0])
        self._before: dict[tuple[str | None, str], Array | Problem] = {}

    def ask_before(self, tried: Sequence[Suspect]) -> None:
        """Ask every variant of the suspect for the first of the other images, before it has seen a probe."""
        for one in tried:
            self._before[_variant(one)] = self._ask(self._others[:LEAST], one)

    def ask_after(self, findings: Findings, suspect: Suspect, responses: Responses) -> Findings:
        """Ask for probes and other images together, and return the findings with what they show.

        Args:
            findings: Of the audit. Nothing is asked if they end it: the responses cannot be tested, or an interim
                analysis supports the claim.
            suspect: The variant that the findings are of.
            responses: Its responses to the claim's probes.
        """
        findings = replace(findings, queries=findings.queries + LEAST * len(self._before))
        if findings.problems or findings.ended_early:
            return findings
        found = self._test(suspect, responses.sets["public"])
        findings = replace(findings, queries=findings.queries + len(self._probes) + len(self._others))
        if isinstance(found, Problem):
            return replace(findings, pool_problem=found)
        return replace(findings, pool_test=found)

    def _test(self, suspect: Suspect, public: Array) -> PoolTest | Problem:
        before = self._before[_variant(suspect)]
        if isinstance(before, Problem):
            return before
        asked, shuffled = (
            np.r_[self._drawn, self._others],
            self._random.permutation(len(self._drawn) + len(self._others)),
        )
        answers = self._ask(asked[shuffled], suspect)
        if isinstance(answers, Problem):
            return answers
        if not len(public[0]) == len(before[0]) == len(answers[0]):
            return Problem(code=ProblemCode.UNSTABLE, detail=DIFFERENT)
        again = np.empty_like(answers)
        again[shuffled] = answers
        n = len(self._drawn)
        earlier = np.r_[public[self._probes], before]
        if relative_difference(earlier, again[: n + LEAST], public) > self._tolerance:
            return Problem(code=ProblemCode.UNSTABLE, detail=DIFFERENT)
        features = classifier_features(answers.astype(np.float64), self._images[torch.from_numpy(asked[shuffled])])
        explained, reaching = pool_test(features, shuffled < n, self._random)
        return PoolTest(
            probes=n, others=len(self._others), explained=explained, permutations=PERMUTATIONS, reaching=reaching
        )

    def _ask(self, which: NDArray[np.intp], suspect: Suspect) -> Array | Problem:
        """Return the responses `(n, d)`; a suspect that fails here must not thereby escape what else was found."""
        try:
            answers = query(suspect.asked(), {"public": self._images[torch.from_numpy(which)]}, "suspect").sets[
                "public"
            ]
        except SuspectError as e:
            return Problem(code=ProblemCode.FAILED, detail=f"asked for images of the pool: {e.message}")
        if not np.isfinite(answers).all():
            bad = int((~np.isfinite(answers)).any(1).sum())
            detail = f"the responses to {bad} of {len(answers)} images of the pool are not finite (NaN or infinite)"
            return Problem(code=ProblemCode.NOT_FINITE, detail=detail)
        return answers


def _variant(of: Suspect) -> tuple[str | None, str]:
    return of.entry, of.preprocess.name
