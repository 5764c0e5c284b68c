"""The test of the pool in an audit: probes and other images of their pool, asked together, in the pool's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ownership.claims.claim import Claim
from ownership.errors import ClaimError, SuspectFailure
from ownership.evidence.pool_test import LEAST, MOST, PERMUTATIONS, classifier_features, pool_test
from ownership.evidence.querying import Problem, ProblemCode, query
from ownership.keyed.key import Key
from ownership.keyed.pool import check_pool, in_channels
from ownership.suspects.preprocessing import Preprocess
from ownership.suspects.suspect import Suspect
from ownership.verdict.findings import Findings
from ownership.verdict.results import PoolTest


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


def test_of_pool(claim: Claim, suspect: Suspect, images: Tensor) -> tuple[PoolTest, int]:
    """Return whether a suspect answers the probes as it answers other images of their pool, and the queries made.

    Args:
        claim: The claim, with a key.
        suspect: The suspect, with the preprocessing to use.
        images: `(n, c, h, w)` uint8, all images of the pool in their order.

    Raises:
        ClaimError: If these are other images.
        SuspectError: If the suspect cannot take them.
    """
    key = check_pool_of(claim, images)
    order = key.pool_order()
    asked = np.sort(np.r_[order[: min(MOST, key.probes)], order[key.probes :][:MOST]])
    is_probe = np.isin(asked, order[: key.probes])
    shown = in_channels(images, key.pool.shape[0])[torch.from_numpy(asked)]
    encoder = suspect.preprocess.before(suspect.encoder)
    responses = query(encoder, {"public": shown}, "suspect").get("public")
    features = classifier_features(responses, shown)
    explained, reaching = pool_test(features, is_probe, np.random.default_rng(claim.plan.seed))
    found = PoolTest(
        probes=int(is_probe.sum()),
        others=int((~is_probe).sum()),
        explained=explained,
        permutations=PERMUTATIONS,
        reaching=reaching,
    )
    return found, len(asked)


def with_pool_test(
    findings: Findings, claim: Claim, suspect: Suspect, tried: Sequence[Preprocess], pool: Tensor
) -> Findings:
    """Return findings with the test of the pool, by the preprocessing that they are of."""
    if findings.problems or findings.ended_early:  # nothing to learn: it cannot be tested, or the claim is supported
        return findings
    used = next(p for p in tried if p.name == findings.suspect.preprocessing)
    try:
        test, asked = test_of_pool(claim, replace(suspect, preprocess=used), pool)
    except SuspectFailure as e:  # a finding about the suspect, not a failure of the audit
        return replace(findings, problems=(Problem(code=ProblemCode.FAILED, detail=e.message),))
    return replace(findings, pool_test=test, queries=findings.queries + asked)
