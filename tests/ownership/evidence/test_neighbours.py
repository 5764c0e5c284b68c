"""Agreement about nearest neighbours: known answers, a naive loop as oracle, and what it does not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ownership.evidence.neighbours import agreement_beyond, agreements, nearest_neighbours

Array = NDArray[np.float64]


def naive_neighbours(x: Array, k: int) -> list[set[int]]:
    x = x - x.mean(0)
    found = []
    for i, a in enumerate(x):
        cosines = [(-float(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)), j) for j, b in enumerate(x) if j != i]
        found.append({j for _, j in sorted(cosines)[:k]})
    return found


def naive_agreement(reference: Array, other: Array, baselines: list[Array], k: int) -> float:
    sets = [naive_neighbours(x, k) for x in (reference, other, *baselines)]
    beyond = shared = 0
    for i in range(len(reference)):
        unexplained = sets[0][i].difference(*(s[i] for s in sets[2:]))
        beyond += len(unexplained)
        shared += len(unexplained & sets[1][i])
    return shared / beyond


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_a_naive_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(40, 3))
    reference, other, a, b = (np.hstack([common, rng.normal(size=(40, d))]) + 5 for d in (4, 6, 2, 9))
    near = {n: nearest_neighbours(x, 5) for n, x in (("r", reference), ("o", other), ("a", a), ("b", b))}
    baselines = {"a": near["a"], "b": near["b"]}
    assert agreement_beyond(near["r"], near["o"], {}) == naive_agreement(reference, other, [], 5)
    assert agreement_beyond(near["r"], near["o"], baselines) == naive_agreement(reference, other, [a, b], 5)
    for encoder, x in (("o", other), ("a", a)):
        assert agreements(near["r"], near[encoder], baselines) == {
            "a": naive_agreement(reference, x, [b], 5),
            "b": naive_agreement(reference, x, [a], 5),
        }


def test_a_known_answer() -> None:
    """Six points on a circle in three pairs: the neighbour of each is its partner. Other pairs under the others."""
    turned = {0: [0, 1, 120, 121, 240, 241], 1: [0, 120, 1, 240, 121, 241], 2: [0, 120, 240, 1, 121, 241]}
    x = {n: np.stack([np.cos(np.radians(a)), np.sin(np.radians(a))], 1) for n, a in turned.items()}
    pairs, crossed, third = (nearest_neighbours(x[n], 1) for n in turned)
    assert pairs.nonzero()[1].tolist() == [1, 0, 3, 2, 5, 4]
    assert crossed.nonzero()[1].tolist() == [2, 4, 0, 5, 1, 3]
    assert agreement_beyond(pairs, pairs, {}) == 1
    assert agreement_beyond(pairs, crossed, {}) == 0
    assert agreement_beyond(pairs, pairs, {"same": pairs}) == 0  # nothing is left that a baseline does not find
    half = pairs.copy()
    half[3:] = crossed[3:]
    assert agreement_beyond(pairs, half, {}) == 0.5
    assert agreement_beyond(pairs, pairs, {"half": half}) == 1
    assert agreement_beyond(half, crossed, {"pairs": pairs, "third": third & False}) == 1


def test_it_depends_on_no_rotation_scale_translation_or_padding() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 8))
    q, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    same = nearest_neighbours(x)
    assert (nearest_neighbours(7 * x @ q + 100) == same).all()
    assert (nearest_neighbours(np.hstack([x, np.zeros((60, 3))])) == same).all()
    assert same.sum(1).tolist() == [10] * 60
    assert not same.diagonal().any()


def test_fewer_images_than_neighbours_and_constant_representations() -> None:
    few = nearest_neighbours(np.eye(4), 10)
    assert few.sum(1).tolist() == [3] * 4
    constant = nearest_neighbours(np.ones((30, 4)))
    assert constant.sum(1).tolist() == [10] * 30
