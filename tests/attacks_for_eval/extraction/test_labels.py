"""Extraction of classifiers: what the victim returns, the losses by hand, and that each output suffices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.labels import (
    CLASSIFIER_OUTPUTS,
    Classifier,
    ClassifierOutput,
    extract_classifier,
    fit_layer,
)
from ownership.encoders.images import as_input, represent, three_channels
from ownership.errors import TrainingError
from watermark_training.data import Data
from watermark_training.training import Trained


def test_losses_by_hand() -> None:
    rng = np.random.default_rng(0)
    own, target = rng.normal(size=(4, 3)), rng.dirichlet(np.ones(3), 4)
    log_p = [row - math.log(sum(math.exp(v) for v in row)) for row in own]
    by_hand = {
        "labels": -sum(log_p[i][target[i].argmax()] for i in range(4)) / 4,
        "posteriors": sum(target[i, j] * (math.log(target[i, j]) - log_p[i][j]) for i in range(4) for j in range(3))
        / 4,
        "logits": sum((own[i, j] - target[i, j]) ** 2 for i in range(4) for j in range(3)) / 12,
    }
    for name, loss in CLASSIFIER_OUTPUTS.items():
        assert loss(torch.from_numpy(own), torch.from_numpy(target)).item() == pytest.approx(by_hand[name])


@pytest.mark.parametrize("output", list(CLASSIFIER_OUTPUTS))
def test_a_classifier_is_extracted_from_its_outputs(output: ClassifierOutput, trained: Trained, digits: Data) -> None:
    assert digits.labels is not None
    x, y = digits.images, digits.labels
    layer = fit_layer(trained.encoder, x[:600], y[:600])
    victim = Classifier(trained.encoder, layer, output).eval()
    given = victim(three_channels(as_input(x[:20])))
    assert bool((given.sum(1) - 1).abs().max() < 1e-5) == (output != "logits")
    config = ExtractionConfig(arch="tiny", queries=512, epochs=20, batch_size=64, lr=2e-3)
    box = BlackBox(victim)
    surrogate = extract_classifier(box, output, x[600:1200], config)
    assert box.queries == 512
    assert surrogate.accuracy(x[1200:], y[1200:]) > 0.6
    assert represent(surrogate.encoder, x[:4]).shape == (4, 64)


def test_too_few_images_are_said(trained: Trained, digits: Data) -> None:
    with pytest.raises(TrainingError, match="queries from"):
        extract_classifier(
            BlackBox(trained.encoder), "labels", digits.images[:9], ExtractionConfig(arch="tiny", queries=10)
        )
