"""Linear evaluation: a known result, both methods, and what cannot be evaluated."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from statsmodels.stats.proportion import proportion_confint

from attacks_for_eval.evaluation.linear import linear_evaluation
from ownership.encoders.images import represent
from ownership.errors import TrainingError
from watermark_training.data import Data
from watermark_training.training import Trained


def _flat(x: torch.Tensor) -> torch.Tensor:
    return x[:, :1].flatten(1)


def test_exact_is_scikit_learn_on_standardised_representations(digits: Data, trained: Trained) -> None:
    assert digits.labels is not None
    x, y = digits.images, digits.labels
    result = linear_evaluation(trained.encoder, (x[:900], y[:900]), (x[900:1400], y[900:1400]))
    features = represent(trained.encoder, x[:1400]).double()
    mean, sd = features[:900].mean(0), features[:900].std(0) + 1e-6
    features = (features - mean) / sd
    model = LogisticRegression(C=1.0, max_iter=2000).fit(features[:900].numpy(), y[:900].numpy())
    assert result.accuracy == pytest.approx(model.score(features[900:].numpy(), y[900:1400].numpy()), abs=0.005)
    low, high = proportion_confint(round(result.accuracy * 500), 500, method="wilson")
    assert result.confidence_interval == pytest.approx((low, high))
    assert (result.n_train, result.n_test, result.classes) == (900, 500, 10)


@pytest.mark.heavy
def test_sgd_learns_pixels(digits: Data) -> None:
    assert digits.labels is not None
    x, y = digits.images, digits.labels
    result = linear_evaluation(_flat, (x[:900], y[:900]), (x[900:], y[900:]), method="sgd", lr=0.05, epochs=20)
    assert result.accuracy > 0.85
    again = linear_evaluation(_flat, (x[:900], y[:900]), (x[900:], y[900:]), method="sgd", lr=0.05, epochs=20)
    assert again == result


@pytest.mark.heavy
def test_lars_learns_pixels(digits: Data) -> None:
    assert digits.labels is not None
    x, y = digits.images, digits.labels
    result = linear_evaluation(_flat, (x[:900], y[:900]), (x[900:], y[900:]), method="lars", lr=1.0, epochs=20)
    assert result.accuracy > 0.85
    assert result.method == "lars"


def test_lars_is_the_papers_update() -> None:
    """You et al. 2017, algorithm 1, without momentum: w - lr * trust * |w| / |g| * g, one factor a layer."""
    from timm.optim.lars import Lars

    w = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    w.grad = torch.tensor([[0.6, 0.8]])
    Lars([w], lr=0.1, trust_coeff=0.001, weight_decay=1e-12, always_adapt=True).step()
    torch.testing.assert_close(w.detach(), torch.tensor([[3.0, 4.0]]) * (1 - 0.1 * 0.001))


def test_one_class_or_nothing_to_test_is_said(digits: Data) -> None:
    x, y = digits.images[:20], torch.zeros(20, dtype=torch.long)
    with pytest.raises(TrainingError, match="two classes"):
        linear_evaluation(_flat, (x, y), (x, y))
    with pytest.raises(TrainingError, match="unknown method"):
        linear_evaluation(_flat, (x, y), (x, y), method="magic")  # type: ignore[arg-type]
