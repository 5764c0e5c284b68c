"""Candidates for evidence: scores of one encoder's answers in a context, compared by `development.py`."""

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
from ownership.evidence.watermark_scores import certainty, watermark_auc, watermark_logits, watermark_success
from ownership.plan import Plan
from ownership.stats import fisher_z

Score = Callable[[Responses, ScoringContext], float]
PLAN = Plan(n_public=1000, n_rotated=1000, n_rotations=4)
NOISES = (0.0, 1.0, 2.0)
"""Strengths of the noise that predictors are fitted anew with; "mark, own" is the claim's."""


def fewer_turned(probes: int, n_rotations: int) -> Callable[[Responses], Responses]:
    """Returns what cuts an encoder's turned answers to so many probes and turns, and keeps the result."""

    @cache
    def fewer(a: Responses) -> Responses:
        shown = a.sets["rotated"].reshape(PLAN.n_rotations, PLAN.n_rotated, -1)[:n_rotations, :probes]
        return Responses(a.name, {"public": a.sets["public"], "rotated": shown.reshape(n_rotations * probes, -1)})

    return fewer


def turned(probes: int, n_rotations: int, directions: int = 64, *, upright: bool = True) -> Callable[..., float]:
    """Returns the turned reading with so many probes and turns; or given the panel's turned answers only."""
    plan = replace(PLAN, n_rotated=probes, n_rotations=n_rotations, rotated_directions=directions)

    fewer = fewer_turned(probes, n_rotations)

    def score(suspect: Responses, context: ScoringContext) -> float:
        victim, others = fewer(context.victim), tuple(map(fewer, context.panel))
        if upright:
            return fisher_z(
                partial_rsa_rotated(fewer(suspect), replace(context, plan=plan, victim=victim, panel=others))
            )
        given = [a.rsa_rotated(plan) for a in others]
        cov = covariance([victim.rsa_unrotated(plan), fewer(suspect).rsa_rotated(plan), *given])
        return fisher_z(partial_correlation(cov, 0, 1, list(range(2, len(cov)))))

    return score


def turned_relative(n_rotations: int) -> Score:
    """Returns how far the victim stands out among everybody whose upright structure the suspect's turned one resembles.

    A member's own turned structure is not given where the suspect is compared with it, as the victim's is not.
    """
    plan = replace(PLAN, n_rotations=n_rotations, rotated_directions=64)

    fewer = fewer_turned(PLAN.n_rotated, n_rotations)

    def score(suspect: Responses, context: ScoringContext) -> float:
        panel = [fewer(a) for a in context.panel]
        upright = [a.rsa_unrotated(plan) for a in (fewer(context.victim), *panel)]
        cov = covariance([fewer(suspect).rsa_rotated(plan), *upright, *(a.rsa_rotated(plan) for a in panel)])
        n = len(panel)
        z = []
        for k in range(n + 1):
            given = [i for i in range(1, 2 * n + 2) if i not in (1 + k, *([1 + n + k] if k else []))]
            z.append(fisher_z(partial_correlation(cov, 0, 1 + k, given)))
        return trimmed_z(z[0], z[1:])

    return score


def relative(directions: int) -> Callable[[Responses, ScoringContext], float]:
    """Returns the relative reading with so many directions."""
    plan = replace(PLAN, rsa_directions=directions)

    @cache
    def upright(a: Responses) -> Responses:
        return Responses(a.name, {"public": a.sets["public"]})  # an encoder keeps its structure for one number only

    def score(suspect: Responses, context: ScoringContext) -> float:
        others = tuple(map(upright, context.panel))
        return partial_rsa_relative(
            upright(suspect), replace(context, plan=plan, victim=upright(context.victim), panel=others)
        )

    return score


def watermark(name: str, reading: Callable[[Responses, ScoringContext], float] = watermark_success) -> Score:
    """Returns a reading of the mark (logit of a rate) by one of the context's predictors."""

    def score(suspect: Responses, context: ScoringContext) -> float:
        assert isinstance(context.predictor, nn.ModuleDict)
        if name not in context.predictor:
            raise NotApplicable
        return float(logit(reading(suspect, replace(context, predictor=context.predictor[name]))))

    return score


def sureness(errors: float, images: int = 1000) -> Score:
    """Returns the certainty of the predictor less so many standard errors, on the first so many images."""

    def score(suspect: Responses, context: ScoringContext) -> float:
        logits, labels = watermark_logits(suspect, context)
        first = np.concatenate([np.flatnonzero(labels == k)[:images] for k in (0, 1)])
        return float(np.clip(certainty(logits[first], labels[first], errors), 1e-3, 1 - 1e-3))

    return score


FITTED = {
    f"{'pairs, ' if pairs else ''}{'against, ' if against else ''}noise {noise:g}": (noise, pairs, against)
    for pairs, against in ((False, False), (True, False), (True, True))
    for noise in NOISES
}
"""Predictors fitted anew by their names in the context: noise, whether of pairs, whether against the checkpoint."""


CANDIDATES: dict[str, Score] = {
    "partial RSA": lambda a, c: fisher_z(partial_rsa(a, c)),
    "relative": relative(32),
    "relative, k 64": relative(64),
    "turned 300x4, k 32": turned(300, 4, 32),
    "turned 1000x4, k 32": turned(1000, 4, 32),
    "turned 1000x1": turned(1000, 1),
    "turned 1000x2": turned(1000, 2),
    "turned 1000x4": turned(1000, 4),
    **{f"turned 1000x2, k {k}, with students": turned(1000, 2, k) for k in (24, 32, 48, 64)},
    "turned 1000x2, relative": turned_relative(2),
    "turned 1000x4, relative": turned_relative(4),
    "turned, upright not given": turned(1000, 4, upright=False),
    **{
        f"mark, {p}{reading}": watermark(p, score)
        for p in ("own", *FITTED)
        for reading, score in (
            ("", watermark_success),
            (", area", watermark_auc),
            (", certainty", sureness(0)),
            (", certainty less 3", sureness(3)),
            (", certainty less 3, 250", sureness(3, 250)),
        )
    },
}
