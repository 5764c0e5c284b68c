"""Size of the deciding statistics that depend on the panel, on simulated encoders: who is innocent is known there."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ownership.evidence.responses import Responses, ScoringContext
from ownership.evidence.statistics import SCALES, STATISTICS
from ownership.plan import Plan
from ownership.stats import case_control_test

PROBES, OWN, KIN, TURNS = 60, 6, 8, 2
"""Probes; directions that each encoder has for itself; that all kin of the victim share; turned copies."""

KINDS = ("plain", "sibling")
STRATA = (*KINDS, "distilled")
CLEAR, SPOILT = 0.2, 1.0
"""Noise of answers to upright images, and to turned ones; students answer those as clearly."""


class Simulator:
    """Draws encoders: what all of a data set learn, what kin inherit, and what is an encoder's own, in random bases.

    Each draws the weights of the three anew, heavily (log-normal): encoders differ in how much of the others they have.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.world, self.base_checkpoint = self.draw(8), self.draw(KIN)
        self.plan = Plan(rsa_directions=12, n_rotated=PROBES, n_rotations=TURNS)

    def draw(self, d: int) -> NDArray[np.float64]:
        return self.rng.normal(size=(PROBES, d))

    def encoder(self, kind: str) -> NDArray[np.float64]:
        world, from_checkpoint, own = np.exp(self.rng.normal(scale=0.6, size=3))
        parts = [world * self.world, own * self.draw(OWN)]
        if kind == "sibling":
            parts.append(from_checkpoint * self.base_checkpoint)
        return np.concatenate(parts, 1)

    def student(self, teacher: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([teacher, np.exp(self.rng.normal(scale=0.6)) * self.draw(OWN)], 1)

    def responses(self, name: str, features: NDArray[np.float64], turned: float = CLEAR) -> Responses:
        d = features.shape[1]

        def seen(noise: float) -> NDArray[np.float32]:
            disturbed = features + noise * self.rng.normal(size=features.shape)
            return (disturbed @ self.rng.normal(size=(d, d))).astype(np.float32)

        return Responses(name, {"public": seen(CLEAR), "rotated": np.concatenate([seen(turned) for _ in range(TURNS)])})

    def pvalue(self, statistic: str, suspect_kind: str) -> tuple[float, float]:
        """Largest p over the strata of an innocent suspect, and of a copy of the victim with as much of its own."""
        features = self.encoder("sibling")
        bodies = {f"{kind}{i}": self.encoder(kind) for i in range(6) for kind in KINDS}
        teachers = {f"student{i}": name for i, name in enumerate(list(bodies)[:6])}
        panel = [self.responses(name, body, SPOILT) for name, body in bodies.items()]
        panel += [self.responses(name, self.student(bodies[teacher])) for name, teacher in teachers.items()]
        victim = self.responses("victim", features)
        context = ScoringContext(plan=self.plan, victim=victim, panel=tuple(panel), teachers=teachers)
        tested = STATISTICS[statistic]
        forward = SCALES[tested.scale][0]
        members = {m.name: forward(tested.score(m, context.without(m))) for m in panel}

        def largest(responses: Responses) -> float:
            value = forward(tested.score(responses, context))
            strata = ([members[n] for n in members if n.startswith(k)] for k in STRATA)
            return max(case_control_test(value, scores).pvalue for scores in strata)

        taught = suspect_kind == "distilled"
        suspect = self.encoder(self.rng.choice(KINDS) if taught else suspect_kind)
        innocent = self.responses("s", self.student(suspect)) if taught else self.responses("s", suspect, SPOILT)
        return largest(innocent), largest(self.responses("c", np.concatenate([features, self.draw(OWN)], 1)))


@pytest.mark.parametrize("kind", STRATA)
@pytest.mark.parametrize("statistic", ["partial_rsa_relative", "partial_rsa", "partial_rsa_rotated"])
def test_size_under_simulated_encoders(statistic: str, kind: str) -> None:
    """H0: the suspect is one more encoder of a stratum. Unit: an encoder. Panel and victim are drawn anew each time.
    A student's teacher is an encoder like those in the panel, not in it.

    The largest p over strata must reject at most as often as stated, within three standard errors of the simulations;
    and the test is no empty one: copies are rejected eight times as often.
    """
    level, runs = 0.05, 400
    found = np.array([Simulator(seed).pvalue(statistic, kind) for seed in range(runs)])
    innocent, copies = (found <= level).mean(0)
    assert innocent <= level + 3 * (level * (1 - level) / runs) ** 0.5
    assert copies > 8 * max(level, innocent)
