"""The extraction losses against naive loops; the black box counts; a theft moves towards its victim."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import encoder

from attacks_for_eval.extraction import BlackBox, ExtractionConfig, extract
from attacks_for_eval.losses import LOSSES
from ownership.architectures import Encoder
from ownership.errors import TrainingError
from ownership.images import represent
from ownership.similarity import linear_cka
from watermark_training.data import Data
from watermark_training.train import Trained


def _pair(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(6, 4)) * 3, rng.normal(size=(6, 4)) * 3


def naive_mse(a: np.ndarray, b: np.ndarray) -> float:
    return sum((a[i, j] - b[i, j]) ** 2 for i in range(6) for j in range(4)) / 24


def naive_infonce(a: np.ndarray, b: np.ndarray) -> float:
    z, total = np.concatenate([a, b]), 0.0
    for i in range(12):
        scores = {
            k: math.exp(float(z[i] @ z[k] / np.linalg.norm(z[i]) / np.linalg.norm(z[k])) / 0.07)
            for k in range(12)
            if k != i
        }
        total -= math.log(scores[(i + 6) % 12] / sum(scores.values()))
    return total / 12


def naive_softnn(a: np.ndarray, b: np.ndarray) -> float:
    """Frosst et al. 2019, equation 1, with the image as the class and T = 100."""
    z, labels, total = np.concatenate([a, b]), list(range(6)) * 2, 0.0
    for i in range(12):
        near = [math.exp(-float(((z[i] - z[k]) ** 2).sum()) / 100) for k in range(12)]
        same = sum(near[k] for k in range(12) if k != i and labels[k] == labels[i])
        total -= math.log(same / sum(near[k] for k in range(12) if k != i))
    return total / 12


@pytest.mark.parametrize(("name", "naive"), [("mse", naive_mse), ("infonce", naive_infonce), ("softnn", naive_softnn)])
def test_losses_are_the_naive_loops(name: str, naive: object) -> None:
    a, b = _pair()
    ours = LOSSES[name](torch.from_numpy(a), torch.from_numpy(b)).item()
    assert ours == pytest.approx(naive(a, b), rel=1e-5)  # type: ignore[operator]


def test_every_loss_has_an_oracle() -> None:
    assert set(LOSSES) == {"mse", "infonce", "softnn"}


def test_the_black_box_counts_every_answer(victim: Encoder, digits: Data) -> None:
    box = BlackBox(victim)
    box(digits.images[:10])
    box(digits.images[:10])
    assert box.queries == 20


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_theft_comes_closer_to_its_victim(loss: str, trained: Trained, digits: Data) -> None:
    box = BlackBox(trained.encoder)
    config = ExtractionConfig(loss=loss, arch="tiny", queries=512, epochs=20, batch_size=64, lr=2e-3)
    surrogate = extract(box, digits.images[:600], config)
    assert box.queries == 512
    held_out = digits.images[600:900]
    answers = represent(trained.encoder, held_out).double().numpy()

    def likeness(e: Encoder) -> float:
        return linear_cka(represent(e, held_out).double().numpy(), answers)

    assert likeness(surrogate) > 0.85
    assert likeness(surrogate) > likeness(encoder(4)) + 0.1


def test_a_theft_repeats_by_seed(victim: Encoder, digits: Data) -> None:
    config = ExtractionConfig(arch="tiny", queries=64, epochs=1, batch_size=32)
    a, b = (extract(BlackBox(victim), digits.images, config) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_bad_thefts_are_said(victim: Encoder, digits: Data) -> None:
    with pytest.raises(TrainingError, match="queries from"):
        extract(BlackBox(victim), digits.images[:9], ExtractionConfig(arch="tiny", queries=10))
    with pytest.raises(TrainingError, match="gives 128 numbers"):
        extract(BlackBox(victim), digits.images, ExtractionConfig(arch="small", queries=10))
    with pytest.raises(TrainingError, match="unknown loss"):
        ExtractionConfig(loss="magic")
