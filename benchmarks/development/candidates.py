"""Candidate statistics: scores of one encoder's representations in a context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
from scipy.special import logit
from torch import nn

from ownership.evidence.distance import partial_rsa, partial_rsa_relative, partial_rsa_rotated, trimmed_z
from ownership.evidence.responses import NotApplicable, Responses, ScoringContext
from ownership.evidence.similarity import covariance, partial_correlation
from ownership.evidence.watermark_scores import (
    mean_true_probability,
    watermark_auc,
    watermark_logits,
    watermark_success,
)
from ownership.plan import Plan
from ownership.stats import fisher_z

Score = Callable[[Responses, ScoringContext], float]
PLAN = Plan(n_public=1000, n_rotated=1000, n_rotations=4)
NOISES = (0.0, 1.0, 2.0)
"""Strengths of the noise that predictors are refitted with; "watermark, own" is the claim's predictor."""


def fewer_rotated(probes: int, n_rotations: int) -> Callable[[Responses], Responses]:
    """Return a cached function that cuts an encoder's rotated responses to so many probes and rotations."""

    @cache
    def fewer(a: Responses) -> Responses:
        shown = a.sets["rotated"].reshape(PLAN.n_rotations, PLAN.n_rotated, -1)[:n_rotations, :probes]
        return Responses(a.name, {"public": a.sets["public"], "rotated": shown.reshape(n_rotations * probes, -1)})

    return fewer


def rotated(probes: int, n_rotations: int, directions: int = 64, *, unrotated: bool = True) -> Callable[..., float]:
    """Return rotation-averaged partial RSA; unless `unrotated`, given the panel's rotated responses only."""
    plan = replace(PLAN, n_rotated=probes, n_rotations=n_rotations, rotated_directions=directions)

    fewer = fewer_rotated(probes, n_rotations)

    def score(suspect: Responses, context: ScoringContext) -> float:
        victim, others = fewer(context.victim), tuple(map(fewer, context.panel))
        if unrotated:
            return fisher_z(
                partial_rsa_rotated(fewer(suspect), replace(context, plan=plan, victim=victim, panel=others))
            )
        given = [a.rsa_rotated(plan) for a in others]
        cov = covariance([victim.rsa_unrotated(plan), fewer(suspect).rsa_rotated(plan), *given])
        return fisher_z(partial_correlation(cov, 0, 1, list(range(2, len(cov)))))

    return score


def rotated_relative(n_rotations: int) -> Score:
    """Return rotation-averaged partial RSA with the victim, standardized by that with each panel member.

    Partial correlations are given all other members' structures. Where the suspect is compared with a member, that
    member's own rotated structure is not given, as the victim's is not.
    """
    plan = replace(PLAN, n_rotations=n_rotations, rotated_directions=64)

    fewer = fewer_rotated(PLAN.n_rotated, n_rotations)

    def score(suspect: Responses, context: ScoringContext) -> float:
        panel = [fewer(a) for a in context.panel]
        unrotated = [a.rsa_unrotated(plan) for a in (fewer(context.victim), *panel)]
        cov = covariance([fewer(suspect).rsa_rotated(plan), *unrotated, *(a.rsa_rotated(plan) for a in panel)])
        n = len(panel)
        z = []
        for k in range(n + 1):
            given = [i for i in range(1, 2 * n + 2) if i not in (1 + k, *([1 + n + k] if k else []))]
            z.append(fisher_z(partial_correlation(cov, 0, 1 + k, given)))
        return trimmed_z(z[0], z[1:])

    return score


def relative(directions: int) -> Callable[[Responses, ScoringContext], float]:
    """Return relative partial RSA with so many directions."""
    plan = replace(PLAN, rsa_directions=directions)

    @cache
    def public_only(a: Responses) -> Responses:
        return Responses(
            a.name, {"public": a.sets["public"]}
        )  # responses cache their structure for one number of directions

    def score(suspect: Responses, context: ScoringContext) -> float:
        others = tuple(map(public_only, context.panel))
        return partial_rsa_relative(
            public_only(suspect), replace(context, plan=plan, victim=public_only(context.victim), panel=others)
        )

    return score


def watermark(name: str, statistic: Callable[[Responses, ScoringContext], float] = watermark_success) -> Score:
    """Return a watermark statistic (logit of a rate) of one of the context's predictors."""

    def score(suspect: Responses, context: ScoringContext) -> float:
        assert isinstance(context.predictor, nn.ModuleDict)
        if name not in context.predictor:
            raise NotApplicable
        return float(logit(statistic(suspect, replace(context, predictor=context.predictor[name]))))

    return score


def probability_bound(errors: float, images: int = 1000) -> Score:
    """Return the predictor's mean true-class probability less so many standard errors, on the first images."""

    def score(suspect: Responses, context: ScoringContext) -> float:
        logits, labels = watermark_logits(suspect, context)
        first = np.concatenate([np.flatnonzero(labels == k)[:images] for k in (0, 1)])
        return float(np.clip(mean_true_probability(logits[first], labels[first], errors), 1e-3, 1 - 1e-3))

    return score


FITTED = {
    f"{'pairs, ' if pairs else ''}{'against, ' if against else ''}noise {noise:g}": (noise, pairs, against)
    for pairs, against in ((False, False), (True, False), (True, True))
    for noise in NOISES
}
"""Refitted predictors by their names in the context: noise, whether of pairs, whether against the checkpoint."""


CANDIDATES: dict[str, Score] = {
    "partial RSA": lambda a, c: fisher_z(partial_rsa(a, c)),
    "relative": relative(32),
    "relative, k 64": relative(64),
    "rotated 300x4, k 32": rotated(300, 4, 32),
    "rotated 1000x4, k 32": rotated(1000, 4, 32),
    "rotated 1000x1": rotated(1000, 1),
    "rotated 1000x2": rotated(1000, 2),
    "rotated 1000x4": rotated(1000, 4),
    **{f"rotated 1000x2, k {k}, with distilled controls": rotated(1000, 2, k) for k in (24, 32, 48, 64)},
    "rotated 1000x2, relative": rotated_relative(2),
    "rotated 1000x4, relative": rotated_relative(4),
    "rotated, unrotated not given": rotated(1000, 4, unrotated=False),
    **{
        f"watermark, {p}{reading}": watermark(p, score)
        for p in ("own", *FITTED)
        for reading, score in (
            ("", watermark_success),
            (", AUC", watermark_auc),
            (", probability", probability_bound(0)),
            (", probability - 3 SE", probability_bound(3)),
            (", probability - 3 SE, 250", probability_bound(3, 250)),
        )
    },
}
"""Name in the rows -> score. Rows hold candidates of earlier rounds, too, whose code is gone."""
