"""The key, the rotation and the predictor."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats
from support.sampling import examples

from ownership.errors import ClaimError
from ownership.watermark import (
    RotationPredictor,
    WatermarkKey,
    paper_key,
    rotate,
    rotated_pairs,
    secret_key,
    stored_predictor,
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 2**31), st.integers(1, 3))
@examples(40)
def test_angles_lie_in_their_arc_and_off_the_margins(seed: int, pairs: int) -> None:
    rng = np.random.default_rng(seed)
    sector_boundaries = tuple(float(c) for c in (np.arange(2 * pairs) + rng.uniform(0, 0.5)) * math.pi / pairs)
    key = WatermarkKey(sector_boundaries=sector_boundaries, margin=0.1, predictor_seed=0)
    labels = torch.arange(2).repeat(200)
    for angle, label in zip(key.angles(labels, _generator(seed)).tolist(), labels.tolist(), strict=True):
        arc = sum(angle >= c for c in sector_boundaries) - 1  # naive: which cut was passed last; -1 is the last arc
        assert arc % 2 == label
        assert min(min(abs(angle - c), 2 * math.pi - abs(angle - c)) for c in sector_boundaries) >= 0.1 - 1e-5


def test_angles_are_uniform_over_the_arcs() -> None:
    key = WatermarkKey(sector_boundaries=(0.5, 2.0, 3.0, 5.5), margin=0.2, predictor_seed=0)
    angles = key.angles(torch.zeros(4000, dtype=torch.long), _generator()).numpy()
    first = (angles > 0.7) & (angles < 1.8)  # 1.1 of the 3.2 radians of label 0
    assert stats.binomtest(int(first.sum()), 4000, 1.1 / 3.2).pvalue > 0.001
    assert stats.kstest(angles[first], stats.uniform(0.7, 1.1).cdf).pvalue > 0.001


def test_the_papers_task_is_half_turns() -> None:
    views, labels, angles = rotated_pairs(torch.rand(50, 1, 16, 16), paper_key(), _generator())
    assert torch.equal(paper_key().labels(angles), labels)
    angles = paper_key().angles(labels, _generator())
    assert len(views) == 100
    assert bool(((angles < math.pi) == (labels == 0)).all())


def test_secret_keys_differ_and_repeat_by_seed() -> None:
    assert secret_key(_generator(1)) == secret_key(_generator(1))
    assert secret_key(_generator(1)).sector_boundaries != secret_key(_generator(2)).sector_boundaries


def test_a_key_survives_being_stored() -> None:
    key = secret_key(_generator(3))
    assert WatermarkKey.from_dict(key.to_dict()) == key


@pytest.mark.parametrize(
    "change",
    [
        {"form": "cuts-9"},
        {"sector_boundaries": [1.0]},
        {"sector_boundaries": [2.0, 1.0]},
        {"sector_boundaries": [0.0, 9.0]},
        {"margin": 2.0},
    ],
)
def test_a_malformed_key_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ClaimError):
        WatermarkKey.from_dict({**secret_key(_generator()).to_dict(), **change})


def test_quarter_turns_are_exact() -> None:
    x = torch.rand(4, 3, 16, 16)
    turned = rotate(x, torch.full((4,), math.pi / 2))
    torch.testing.assert_close(turned, torch.rot90(x, 1, (2, 3)), atol=1e-4, rtol=0)


def test_rotation_is_scipys_away_from_the_edge() -> None:
    x = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(0).random((33, 33)), 2)).float()
    angle = 0.7
    ours = rotate(x[None, None], torch.tensor([angle]))[0, 0].numpy()
    theirs = ndimage.rotate(x.numpy(), math.degrees(angle), reshape=False, order=1)
    np.testing.assert_allclose(ours[8:-8, 8:-8], theirs[8:-8, 8:-8], atol=1e-4)


def test_predictor_depends_on_its_seed_and_not_on_the_length_of_representations() -> None:
    x = torch.randn(5, 8)
    a, b, c = RotationPredictor(8, 1), RotationPredictor(8, 1), RotationPredictor(8, 2)
    torch.testing.assert_close(a(x), b(x))
    torch.testing.assert_close(a(x), a(7 * x))
    assert not torch.allclose(a(x), c(x))


def test_a_predictor_of_pairs_scales_both_answers_by_themselves() -> None:
    """Layer by layer, by hand; a stored one is read back as what it was, and refused for another length."""
    turned, unrotated = torch.randn(5, 8), torch.randn(5, 8)
    predictor = RotationPredictor(8, 1, pairs=True)
    halves = [x / x.norm(dim=1, keepdim=True) * math.sqrt(8) for x in (turned, unrotated)]
    by_hand = torch.cat(halves, 1)
    for i, layer in enumerate(predictor.layers):
        by_hand = by_hand @ layer.weight.T + layer.bias
        by_hand = by_hand.clamp(min=0) if i < 2 else by_hand
    torch.testing.assert_close(predictor(torch.cat([turned, unrotated], 1)), by_hand)
    torch.testing.assert_close(predictor(torch.cat([3 * turned, 0.5 * unrotated], 1)), by_hand)
    for made in (predictor, RotationPredictor(8, 1)):
        again = stored_predictor(made.state_dict(), 8)
        assert again.pairs is made.pairs
        assert all(torch.equal(v, made.state_dict()[k]) for k, v in again.state_dict().items())
        with pytest.raises(RuntimeError):
            stored_predictor(made.state_dict(), 5)
