"""Size of the primary statistics that depend on the panel, on simulated encoders."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support.sampling import number

from ownership.evidence.responses import Responses, ScoringContext
from ownership.evidence.statistics import SCALES, STATISTICS
from ownership.plan import Plan
from ownership.stats import case_control_test

PROBES, OWN, SIBLING, TURNS = 60, 6, 8, 2
"""Probes; directions that each encoder has for itself; that all siblings of the victim share; rotated copies."""

STATISTICS_OF_THE_PANEL = ("partial_rsa_relative", "partial_rsa", "partial_rsa_rotated")
KINDS = ("plain", "sibling")
STRATA = (*KINDS, "distilled")
CLEAR, SPOILT = 0.2, 1.0
"""Noise of responses to unrotated images, and to rotated ones; distilled encoders answer those as clearly."""


class Simulator:
    """Draws encoders in random bases: what a data set teaches, what siblings inherit, what is an encoder's own.

    Each draws the weights of the three anew, heavily (log-normal): encoders differ in how much of the others they have.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.world, self.base_checkpoint = self.draw(8), self.draw(SIBLING)
        self.plan = Plan(rsa_directions=12, n_rotated=PROBES, n_rotations=TURNS)

    def draw(self, d: int) -> NDArray[np.float64]:
        return self.rng.normal(size=(PROBES, d))

    def encoder(self, kind: str) -> NDArray[np.float64]:
        world, from_checkpoint, own = np.exp(self.rng.normal(scale=0.6, size=3))
        parts = [world * self.world, own * self.draw(OWN)]
        if kind == "sibling":
            parts.append(from_checkpoint * self.base_checkpoint)
        return np.concatenate(parts, 1)

    def distilled(self, teacher: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([teacher, np.exp(self.rng.normal(scale=0.6)) * self.draw(OWN)], 1)

    def responses(self, name: str, features: NDArray[np.float64], turned: float = CLEAR) -> Responses:
        d = features.shape[1]

        def seen(noise: float) -> NDArray[np.float32]:
            disturbed = features + noise * self.rng.normal(size=features.shape)
            return (disturbed @ self.rng.normal(size=(d, d))).astype(np.float32)

        return Responses(name, {"public": seen(CLEAR), "rotated": np.concatenate([seen(turned) for _ in range(TURNS)])})

    def pvalues(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Return p for each statistic and kind of suspect: of an independent suspect, and of a copy of the victim.

        p is the largest over the strata. The copy has as much of its own. One victim and one panel serve all.
        """
        features = self.encoder("sibling")
        bodies = {f"{kind}{i}": self.encoder(kind) for i in range(6) for kind in KINDS}
        teachers = {f"distilled{i}": name for i, name in enumerate(list(bodies)[:6])}
        panel = [self.responses(name, body, SPOILT) for name, body in bodies.items()]
        panel += [self.responses(name, self.distilled(bodies[teacher])) for name, teacher in teachers.items()]
        victim = self.responses("victim", features)
        context = ScoringContext(plan=self.plan, victim=victim, panel=tuple(panel), teachers=teachers)
        copy = self.responses("copy", np.concatenate([features, self.draw(OWN)], 1))
        suspects = {kind: self.responses(kind, self.encoder(kind), SPOILT) for kind in KINDS}
        teacher = self.encoder(self.rng.choice(KINDS))  # like those in the panel, not in it
        suspects["distilled"] = self.responses("distilled", self.distilled(teacher))
        found = {}
        for statistic in STATISTICS_OF_THE_PANEL:
            tested = STATISTICS[statistic]
            forward = SCALES[tested.scale][0]
            members = {m.name: forward(tested.score(m, context.without(m))) for m in panel}

            def largest(responses: Responses) -> float:
                value = forward(tested.score(responses, context))  # noqa: B023 (called in this round)
                strata = ([members[n] for n in members if n.startswith(k)] for k in STRATA)  # noqa: B023
                return max(case_control_test(value, scores).pvalue for scores in strata)

            copied = largest(copy)
            found.update({(statistic, kind): (largest(suspect), copied) for kind, suspect in suspects.items()})
        return found


@pytest.fixture(scope="module")
def simulated() -> dict[tuple[str, str], NDArray[np.float64]]:
    """p-values of an independent suspect and of a copy, one row a simulated victim and panel."""
    runs = [Simulator(seed).pvalues() for seed in range(number(400, 200))]
    return {case: np.array([run[case] for run in runs]) for case in runs[0]}


@pytest.mark.sampled
@pytest.mark.parametrize("kind", STRATA)
@pytest.mark.parametrize("statistic", STATISTICS_OF_THE_PANEL)
def test_size_under_simulated_encoders(
    statistic: str, kind: str, simulated: dict[tuple[str, str], NDArray[np.float64]]
) -> None:
    """H0: the suspect is one more encoder of a stratum. Unit: an encoder. Panel and victim are drawn anew each time.

    The largest p over strata must reject at most as often as stated, within three standard errors of the simulations;
    and the test has power: copies are rejected eight times as often.
    """
    level, found = 0.05, simulated[statistic, kind]
    independent, copies = (found <= level).mean(0)
    assert independent <= level + 3 * (level * (1 - level) / len(found)) ** 0.5
    assert copies > 8 * max(level, independent)
