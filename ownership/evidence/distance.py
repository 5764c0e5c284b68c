"""Distance statistics: how much of the victim's similarity structure a suspect shares."""

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
    """Return the partial correlation of the suspect's and the victim's similarity structures, given the panel's.

    Distilled controls are left out: their structure is a noisy copy of their teacher's. High: the suspect shares
    structure with the victim that no control has.

    Raises:
        NotApplicable: if the panel determines one of the two structures, or one is constant.

    References:
        [1] Kriegeskorte et al., Representational similarity analysis, Frontiers in Systems Neuroscience 2, 2008.
    """
    return _partial(*(a.rsa(context.plan) for a in (context.victim, suspect, *context.undistilled)))


def partial_rsa_relative(suspect: Responses, context: ScoringContext) -> float:
    """Return the victim-specific similarity of the suspect, standardised over the panel (docs/adr/0010).

    For the victim and each control k that is not distilled, `z_k` is the Fisher z of the partial correlation between
    the similarity structures of the suspect and of k, given all others. The score is
    `(z_victim - mean(z_panel)) / sqrt(var(z_panel) + 0.01^2)`, with mean and variance trimmed by 10 % at either end.

    High: the suspect resembles the victim more than it resembles any independent encoder. An independent suspect
    resembles the victim as much as it resembles the controls, whether that is much (siblings) or little. Trimming
    keeps an attacker from widening the spread by mixing a known control, such as the victim's public base checkpoint,
    into the outputs.

    Raises:
        NotApplicable: if fewer than `MIN_STRATUM` controls are left, or a similarity structure is constant.
    """
    if len(context.undistilled) < MIN_STRATUM:
        raise NotApplicable(f"the panel has {len(context.undistilled)} other members")
    structures = [a.rsa(context.plan) for a in (suspect, context.victim, *context.undistilled)]
    cov = covariance(structures)
    if not np.diag(cov).min() > 0:
        raise NotApplicable("a similarity structure is constant")
    z = [fisher_z(float(r)) for r in partial_correlations(cov, 0)]
    return trimmed_z(z[0], z[1:])


def trimmed_z(value: float, others: Sequence[float]) -> float:
    """Return `(value - mean) / sqrt(variance + 0.01^2)` of the others, trimmed by 10 %, at least one, at either end.

    The floor of 0.01 gives the victim itself, whose spread over the panel may be zero, a finite score.
    """
    cut = max(1, len(others) // 10)
    kept = sorted(others)[cut:-cut]
    return (value - float(np.mean(kept))) / math.hypot(float(np.std(kept, ddof=1)), 0.01)


def partial_rsa_rotated(suspect: Responses, context: ScoringContext) -> float:
    """Return rotation-averaged partial RSA: rotated copies for the suspect, unrotated probes for the victim.

    The partial correlation of the victim's structure over unrotated probes and the suspect's structure over its mean
    representations of rotated copies, given both structures of each control. It detects an attacker who trains a
    surrogate to give the victim's representation of an unrotated image for each rotated copy, which removes the
    watermark. Both structures of each control are partialled out, so what any rotation-invariant encoder shares with
    the victim is no evidence (docs/adr/0025).

    Raises:
        NotApplicable: if the panel determines one of the two structures, or one is constant.
    """
    plan = context.plan
    unrotated = (a.rsa_unrotated(plan) for a in (context.victim, *context.panel))
    rotated = (a.rsa_rotated(plan) for a in context.panel)
    return _partial(next(unrotated), suspect.rsa_rotated(plan), *unrotated, *rotated)


def _partial(victim: Structure, suspect: Structure, *given: Structure) -> float:
    value = partial_correlation(covariance([victim, suspect, *given]), 0, 1, list(range(2, 2 + len(given))))
    if math.isnan(value):
        raise NotApplicable("the panel determines the similarity structure, or it is constant")
    return value


def cka(suspect: Responses, context: ScoringContext) -> float:
    """Return linear CKA between suspect and victim on the public probes, in [0, 1]."""
    return linear_cka(context.victim.get("public"), suspect.get("public"))


def l2_distance(suspect: Responses, context: ScoringContext) -> float:
    """Return the mean l2 distance between raw representations of suspect and victim (paper, Table 18).

    Raises:
        NotApplicable: if the two have representations of different lengths.
    """
    return float(_l2(suspect, context).mean())


def _l2(suspect: Responses, context: ScoringContext) -> Array:
    if suspect.dim != context.victim.dim:
        raise NotApplicable(f"representations have {suspect.dim} numbers, the victim's {context.victim.dim}")
    return raw_l2(context.victim.get("public"), suspect.get("public"))
