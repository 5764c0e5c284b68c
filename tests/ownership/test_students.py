"""The turned reading beside students: its formula, encoders whose teacher is known, where it does not apply."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ownership.answers import Answers, Context, NotApplicable
from ownership.plan import Plan
from ownership.scores import partial_rsa_turned
from ownership.similarity import covariance, given_others, partial_correlation, precision
from ownership.stats import case_control_test, fisher_z
from ownership.students import LEAST, members_turned_relative, turned_relative

PROBES, OWN, TURNS = 80, 6, 2
PLAN = Plan(turned_directions=14, n_turned=PROBES, turns=TURNS)
STRATA = ("plain",) * 6 + ("marked",) * 6


class Encoders:
    """What all encoders of a data set learn, and what is each one's own; turning an image spoils answers."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.world = self.rng.normal(size=(PROBES, 8))
        self.victim = self.features()
        panel = tuple(self.untaught(f"m{i}", self.features()) for i in range(len(STRATA)))
        self.context = Context(plan=PLAN, victim=self.untaught("victim", self.victim), panel=panel, strata=STRATA)

    def features(self) -> NDArray[np.float64]:
        weight = np.exp(self.rng.normal(scale=0.3))
        return np.concatenate([self.world, weight * self.rng.normal(size=(PROBES, OWN))], 1)

    def seen(self, features: NDArray[np.float64], noise: float) -> NDArray[np.float32]:
        d = features.shape[1]
        disturbed = features + noise * self.rng.normal(size=features.shape)
        return (disturbed @ np.linalg.qr(self.rng.normal(size=(d, d)))[0]).astype(np.float32)

    def answers(self, name: str, upright: NDArray[np.float64], turned: NDArray[np.float64], spoilt: float) -> Answers:
        copies = np.concatenate([self.seen(turned, spoilt) for _ in range(TURNS)])
        return Answers(name, {"public": self.seen(upright, 0.1), "turned": copies})

    def untaught(self, name: str, features: NDArray[np.float64]) -> Answers:
        return self.answers(name, features, features, 3.0)

    def student(self, of: NDArray[np.float64], fidelity: float = 0.8) -> Answers:
        """Taught to answer turned images as `of` answers upright ones; upright it hides in answers of its own."""
        return self.answers("student", self.features(), of, 1 / fidelity - 1 + 0.3)


def largest(value: float, members: dict[str, float]) -> float:
    """The largest p over strata."""
    by_stratum = [[members[f"m{i}"] for i, s in enumerate(STRATA) if s == k] for k in set(STRATA)]
    return max(case_control_test(value, scores).pvalue for scores in by_stratum)


def pvalue(answers: Answers, context: Context) -> float:
    return largest(turned_relative(answers, context), members_turned_relative(context))


def without_students(answers: Answers, context: Context) -> float:
    """The same by the turned reading alone, as it decided before docs/adr/0024."""
    members = {m.name: fisher_z(partial_rsa_turned(m, context.without(m))) for m in context.panel}
    return largest(fisher_z(partial_rsa_turned(answers, context)), members)


def test_against_the_definition_written_as_loops() -> None:
    """Every correlation by regressing both structures on the others, without the precision matrix."""
    world = Encoders(0)
    c, suspect = world.context, world.student(world.victim)
    n = len(c.panel)
    upright = [c.victim.rsa_upright(PLAN), *(m.rsa_upright(PLAN) for m in c.panel)]
    turned = [m.rsa_turned(PLAN) for m in c.panel]

    def z(x: int | None, to: int) -> float:
        """Of the suspect (None) or member x's upright answers with those of `to` (0: the victim)."""
        others = [k for k in range(1, n + 1) if k not in (x, to)]
        given = [*(upright[k] for k in others), *(turned[k - 1] for k in others), *([upright[0]] if to else [])]
        first = suspect.rsa_turned(PLAN) if x is None else upright[x]
        return fisher_z(
            partial_correlation(covariance([first, upright[to], *given]), 0, 1, [*range(2, len(given) + 2)])
        )

    def still(i: int) -> float:
        """Of member i's own turned answers with the victim's upright ones."""
        others = [k for k in range(1, n + 1) if k != i]
        given = [*(upright[k] for k in others), *(turned[k - 1] for k in others)]
        structures = covariance([turned[i - 1], upright[0], *given])
        return fisher_z(partial_correlation(structures, 0, 1, [*range(2, len(given) + 2)]))

    expected, members = [], {}
    for stratum in ("plain", "marked"):
        group = [i + 1 for i, s in enumerate(STRATA) if s == stratum]
        ratios = [z(i, 0) / max(np.mean([z(i, k) for k in group if k != i]), LEAST) for i in group]
        own = z(None, 0) / max(np.mean([z(None, k) for k in group]), LEAST)
        expected.append((own - np.mean(ratios)) / np.std(ratios, ddof=1))
        innocent = [still(i) for i in group]
        expected.append((z(None, 0) - np.mean(innocent)) / np.std(innocent, ddof=1))
        members |= {
            f"m{i - 1}": (r - np.mean(ratios)) / np.std(ratios, ddof=1) for i, r in zip(group, ratios, strict=True)
        }
    assert turned_relative(suspect, c) == pytest.approx(min(expected), rel=1e-2)
    assert members_turned_relative(c) == pytest.approx(members, rel=1e-2, abs=1e-2)


def test_students_of_strangers_are_innocent_and_those_of_the_victim_are_not() -> None:
    """H0: the suspect is a student of an encoder like the panel's. Unit: an encoder; all are drawn anew each time."""
    runs, level = 60, 0.05
    innocent, before, stolen, untaught = [], [], [], []
    for seed in range(runs):
        world = Encoders(seed)
        fidelity = float(world.rng.uniform(0.5, 1))
        student = world.student(world.features(), fidelity)
        innocent.append(pvalue(student, world.context))
        before.append(without_students(student, world.context))
        stolen.append(pvalue(world.student(world.victim, fidelity), world.context))
        untaught.append(pvalue(world.untaught("s", world.features()), world.context))
    bound = level + 3 * (level * (1 - level) / runs) ** 0.5
    assert np.mean(np.array(innocent) <= level) <= bound
    assert np.mean(np.array(untaught) <= level) <= bound
    assert np.mean(np.array(stolen) <= level) > 0.9
    assert np.mean(np.array(before) <= level) > 2 * level  # what it is for


def test_a_change_of_basis_scale_or_length_changes_nothing() -> None:
    world = Encoders(1)
    suspect = world.student(world.victim)
    basis = 3 * np.linalg.qr(world.rng.normal(size=(20, 20)))[0][: suspect.dim].astype(np.float32)
    moved = Answers("moved", {name: x @ basis + 1 for name, x in suspect.sets.items()})
    assert turned_relative(moved, world.context) == pytest.approx(turned_relative(suspect, world.context), rel=1e-3)


def test_where_it_does_not_apply() -> None:
    world = Encoders(2)
    suspect = world.student(world.victim)
    with pytest.raises(NotApplicable, match="strata"):
        turned_relative(suspect, replace(world.context, strata=()))
    few = replace(world.context, strata=tuple(f"s{i // 3}" for i in range(len(STRATA))))
    with pytest.raises(NotApplicable, match="no stratum has 5 members"):
        members_turned_relative(few)
    with pytest.raises(NotApplicable, match="no turned probes"):
        turned_relative(Answers("s", {"public": suspect.sets["public"]}), world.context)
    still = Answers("s", {**suspect.sets, "turned": np.ones_like(suspect.sets["turned"])})
    with pytest.raises(NotApplicable, match="constant"):
        turned_relative(still, world.context)
    copies = replace(world.context, panel=(world.context.panel[0],) * len(STRATA))
    with pytest.raises(NotApplicable, match="same score"):
        turned_relative(suspect, copies)


def test_the_block_of_a_precision_matrix_against_regression() -> None:
    rng = np.random.default_rng(0)
    cov = np.cov(rng.normal(size=(6, 40)))
    inverse = precision(cov)
    assert given_others(inverse, 0, 1) == pytest.approx(partial_correlation(cov, 0, 1, [2, 3, 4, 5]), abs=1e-4)
    assert given_others(inverse, 2, 4, [5, 0]) == pytest.approx(partial_correlation(cov, 2, 4, [1, 3]), abs=1e-4)
