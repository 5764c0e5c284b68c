"""Representation distance: how much of the victim's similarity structure an encoder shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ownership.evidence.responses import NotApplicable, Responses, ScoringContext
from ownership.evidence.similarity import (
    Array,
    Structure,
    covariance,
    linear_cka,
    partial_correlation,
    partial_correlations,
    raw_l2,
)
from ownership.stats import MIN_STRATUM, fisher_z


def partial_rsa(suspect: Responses, context: ScoringContext) -> float:
    """Partial RSA: correlation of the victim's and the suspect's similarity structures, given the panel's."""
    return _partial(*(a.rsa(context.plan) for a in (context.victim, suspect, *context.teaching)))


def partial_rsa_relative(suspect: Responses, context: ScoringContext) -> float:
    """How far the victim stands out among everybody whom the suspect resembles (docs/adr/0010).

    z_k is the Fisher z of partial RSA between the suspect and k, given all others, for k the victim and each panel
    member that is nobody's student; the score is (z_victim - mean of the members' z) / sqrt(variance of the members' z
    + .01^2), the floor only so that the victim itself gets a number. An encoder that has nothing to do with the victim
    resembles it as it resembles others of that kind, whether it resembles all of them much (siblings) or little (a bad
    copy).

    Mean and variance leave out a tenth of the members at either end, at least one: a thief who mixes a member that he
    knows (the victim's public checkpoint) into his answers must not widen the spread that he is measured by.
    """
    if len(context.teaching) < MIN_STRATUM:
        raise NotApplicable(f"the panel has {len(context.teaching)} other members")
    structures = [a.rsa(context.plan) for a in (suspect, context.victim, *context.teaching)]
    cov = covariance(structures)
    if not np.diag(cov).min() > 0:
        raise NotApplicable("a similarity structure is constant")
    z = [fisher_z(float(r)) for r in partial_correlations(cov, 0)]
    return trimmed_z(z[0], z[1:])


def trimmed_z(value: float, others: Sequence[float]) -> float:
    """Returns (value - mean) / sqrt(variance + .01^2) of the others, a tenth of which is left out at either end."""
    cut = max(1, len(others) // 10)
    kept = sorted(others)[cut:-cut]
    return (value - float(np.mean(kept))) / math.hypot(float(np.std(kept, ddof=1)), 0.01)


def partial_rsa_rotated(suspect: Responses, context: ScoringContext) -> float:
    """Partial RSA of the victim's answers to upright images with the suspect's mean answers to turned copies.

    A thief who trains the mark away makes his surrogate answer to a turned image what the victim answers to the
    upright one; the mean over turned copies brings the victim's structure out, which one view of it hides. Given the
    panel's structures of both kinds: what any encoder, or any rotation-invariant one, shares is no evidence.
    """
    plan = context.plan
    upright = (a.rsa_unrotated(plan) for a in (context.victim, *context.panel))
    return _partial(next(upright), suspect.rsa_rotated(plan), *upright, *(a.rsa_rotated(plan) for a in context.panel))


def _partial(victim: Structure, suspect: Structure, *given: Structure) -> float:
    value = partial_correlation(covariance([victim, suspect, *given]), 0, 1, list(range(2, 2 + len(given))))
    if math.isnan(value):
        raise NotApplicable("the similarity structure is that of the panel, or constant")
    return value


def cka(suspect: Responses, context: ScoringContext) -> float:
    """Linear CKA between suspect and victim on the public probes."""
    return linear_cka(context.victim.get("public"), suspect.get("public"))


def l2_distance(suspect: Responses, context: ScoringContext) -> float:
    """Mean l2 distance between the raw representations of suspect and victim (paper, Table 18)."""
    return float(_l2(suspect, context).mean())


def _l2(suspect: Responses, context: ScoringContext) -> Array:
    if suspect.dim != context.victim.dim:
        raise NotApplicable(f"representations have {suspect.dim} numbers, the victim's {context.victim.dim}")
    return raw_l2(context.victim.get("public"), suspect.get("public"))
