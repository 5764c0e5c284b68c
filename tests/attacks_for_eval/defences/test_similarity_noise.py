"""The active defences: similarity by loops, noise only where it belongs, error rates by hand."""

from __future__ import annotations

import pytest
import torch

from attacks_for_eval.defences.similarity import (
    SimilarityNoiseBlackBox,
    nearest,
    resembles,
    resembles_earlier,
    similarity_error_rates,
)
from attacks_for_eval.extraction.black_box import BlackBox
from ownership.encoders.images import as_input, as_uint8
from ownership.errors import TrainingError
from watermark_training.augment import simclr_view
from watermark_training.data import Data
from watermark_training.training import Trained


def test_nearest_by_loops() -> None:
    g = torch.Generator().manual_seed(0)
    q, h = torch.randn(5, 4, generator=g), torch.randn(7, 4, generator=g)
    for i in range(5):
        assert nearest(q, h, "l2")[i] == pytest.approx(min(float((q[i] - v).norm()) for v in h), abs=1e-5)
        cosines = [float(torch.cosine_similarity(q[i], v, dim=0)) for v in h]
        assert nearest(q, h, "cosine")[i] == pytest.approx(max(cosines), abs=1e-5)
    assert resembles(h[:2], h, "l2", 0.1).all()
    assert not resembles(-h[:1], h[:1], "cosine", 0.5).any()
    for metric, threshold in (("l2", 1.5), ("cosine", 0.5)):
        earlier = [bool(resembles(h[i : i + 1], h[:i], metric, threshold)) if i else False for i in range(7)]
        assert 0 < sum(earlier) < 7
        for block in (2, 3, 99):
            assert resembles_earlier(h, metric, threshold, block=block).tolist() == earlier


def test_repeated_queries_get_noise_and_new_ones_do_not(trained: Trained, digits: Data) -> None:
    honest = BlackBox(trained.encoder)(digits.images[:10])
    box = SimilarityNoiseBlackBox(trained.encoder, metric="l2", threshold=1e-4)
    torch.testing.assert_close(box(digits.images[:10]), honest)
    assert box.flagged == 0
    again = box(digits.images[:10])
    assert box.flagged == 10
    assert float((again - honest).mean()) == pytest.approx(1000, abs=10)
    twins = box(digits.images[[20, 20]])
    assert box.flagged == 11
    assert float(twins[0].abs().mean()) < 100 < float(twins[1].abs().mean())
    assert box.queries == 22


def test_error_rates_by_hand() -> None:
    first, second = torch.tensor([[0.0], [10.0], [20.0]]), torch.tensor([[1.0], [14.0], [12.0]])
    rates = similarity_error_rates(first, second, "l2", 3.0)
    # same pairs: 1 (similar), 4 (missed), 8 (missed); different: |0-14|, |0-12|, |10-1|, |10-12| = 2, |20-1|, |20-14|
    assert rates.false_negative[0] == pytest.approx(2 / 3)
    assert rates.false_positive[0] == pytest.approx(1 / 6)
    with pytest.raises(TrainingError):
        similarity_error_rates(first, second[:2], "l2", 3.0)


def test_views_of_one_image_are_told_from_other_images(trained: Trained, digits: Data) -> None:
    """With the head, some threshold does far better than guessing (the sum of the two error rates is 1 for a guess)."""
    x, g = as_input(digits.images[600:1112]), torch.Generator().manual_seed(0)
    with torch.no_grad():
        a, b = (
            trained.projection_head(BlackBox(trained.encoder)(as_uint8(simclr_view(x, g, min_crop=0.3, flip=False))))
            for _ in range(2)
        )
    rates = [similarity_error_rates(a, b, "cosine", t) for t in (0.5, 0.6, 0.7, 0.8, 0.9)]
    assert min(r.false_positive[0] + r.false_negative[0] for r in rates) < 0.5
