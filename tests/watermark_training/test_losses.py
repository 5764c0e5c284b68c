"""NT-Xent against the paper's Algorithm 1 written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from watermark_training.losses import nt_xent_loss


def naive_nt_xent(first: np.ndarray, second: np.ndarray, temperature: float) -> float:
    z = [row / np.linalg.norm(row) for row in np.concatenate([first, second])]
    n, total = len(first), 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        denominator = sum(math.exp(float(z[i] @ z[k]) / temperature) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(float(z[i] @ z[partner]) / temperature) / denominator)
    return total / (2 * n)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent_is_the_naive_loop(temperature: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 5)), rng.normal(size=(7, 5))
    ours = nt_xent_loss(torch.from_numpy(a), torch.from_numpy(b), temperature).item()
    assert ours == pytest.approx(naive_nt_xent(a, b, temperature), rel=1e-5)
    assert ours == pytest.approx(nt_xent_loss(torch.from_numpy(b), torch.from_numpy(a), temperature).item(), rel=1e-5)


def test_nt_xent_is_small_for_matching_pairs() -> None:
    a = torch.eye(6)
    assert nt_xent_loss(a, a).item() < 1e-4 < nt_xent_loss(a, a.roll(1, 0)).item()
