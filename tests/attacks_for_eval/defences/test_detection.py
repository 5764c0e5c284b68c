"""Extraction detection: each measure on histories where the result is known; alarms against benign users."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attacks_for_eval.defences.detection import MEASURES, History, HistoryMonitor, alarms, prada_alarm
from attacks_for_eval.extraction.black_box import BlackBox
from ownership.errors import TrainingError
from watermark_training.data import Data
from watermark_training.training import Trained


def test_similar_queries_are_counted_within_and_across_accounts() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = 100 * torch.randn(10, 8, generator=g), 100 * torch.randn(10, 8, generator=g)
    monitor = HistoryMonitor(metric="l2", threshold=1.0)
    monitor.observe("twice", torch.cat([a, a[:5] + 0.01]))
    monitor.observe("once", b)
    monitor.observe("copies", b[:4])
    monitor.observe("copies", b[:1] + 0.01)
    twice, once, copies = (monitor.history(name) for name in ("twice", "once", "copies"))
    assert (twice.queries, once.queries, copies.queries) == (15, 10, 5)
    assert (twice.similar_within, once.similar_within, copies.similar_within) == pytest.approx((5 / 15, 0.0, 1 / 5))
    assert (twice.similar_across, once.similar_across, copies.similar_across) == pytest.approx((0.0, 4 / 10, 1.0))
    with pytest.raises(TrainingError, match="has no queries"):
        monitor.history("unknown")


def test_coverage_counts_the_buckets_of_random_hyperplanes() -> None:
    """By loops; and queries from everywhere cover more than as many from one place."""
    g = torch.Generator().manual_seed(0)
    wide, narrow = (
        torch.randn(200, 8, generator=g),
        torch.randn(8, generator=g) + 0.1 * torch.randn(200, 8, generator=g),
    )
    monitor = HistoryMonitor(metric="l2", threshold=1.0, bits=6, seed=4)
    monitor.observe("attacker", wide)
    monitor.observe("user", narrow)
    planes = torch.randn(8, 6, generator=torch.Generator().manual_seed(4))
    buckets = {tuple(float(row @ planes[:, j]) > 0 for j in range(6)) for row in wide}
    assert monitor.history("attacker").coverage == pytest.approx(len(buckets) / 64)
    assert monitor.history("user").coverage < monitor.history("attacker").coverage / 2


def test_an_alarm_is_more_than_every_benign_user() -> None:
    def history(**measures: float) -> History:
        return History(account="a", queries=9, **{**dict.fromkeys(MEASURES, 0.1), **measures})

    benign = [history(coverage=0.3), history(prada=0.2)]
    assert alarms(history(coverage=0.3), benign) == ()
    assert alarms(history(coverage=0.31, prada=0.21, similar_across=0.1), benign) == ("coverage", "prada")
    with pytest.raises(TrainingError, match="benign"):
        alarms(benign[0], [])


def test_an_attacker_covers_more_than_the_usual_user_of_one_class(trained: Trained, digits: Data) -> None:
    assert digits.labels is not None
    vectors = BlackBox(trained.encoder)(digits.images)
    monitor = HistoryMonitor(metric="cosine", threshold=0.999, bits=10, center=vectors.mean(0))
    for label in range(10):
        monitor.observe(f"user {label}", vectors[digits.labels == label][:150])
    order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))
    monitor.observe("attacker", vectors[order[:150]])
    benign = [monitor.history(f"user {label}").coverage for label in range(10)]
    assert monitor.history("attacker").coverage > 1.3 * float(np.mean(benign))


def test_prada_is_silent_on_natural_and_loud_on_synthetic_queries() -> None:
    rng = np.random.default_rng(0)
    assert not prada_alarm(rng.normal(size=(400, 50)))[0]
    natural = rng.normal(size=(200, 50))
    perturbed = natural + 0.1 * rng.normal(size=(200, 50))  # each natural query again, a little changed
    assert prada_alarm(np.concatenate([natural, perturbed]))[0]
    assert not prada_alarm(rng.normal(size=(50, 5)))[0]  # too few to say
