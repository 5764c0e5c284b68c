"""The test of the pool: its p-value against theory and SciPy, and gates that it finds.

H0: which images are probes does not show in the responses. H1: a gate answers the probes with another encoder.
Unit: the image.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from support.encoders import encoder

from ownership.encoders.images import represent
from ownership.evidence import pool_test as module
from ownership.evidence.pool_test import PERMUTATIONS, classifier_features, pool_test
from ownership.evidence.similarity import ridge_map
from watermark_training.data import load_data


def test_the_share_and_its_pvalue_are_those_of_linear_regression() -> None:
    """For normal features the permutation p-value is near that of the F-test of the regression of the labels."""
    for seed in range(5):
        random = np.random.default_rng(seed)
        x, labels = random.normal(size=(120, 6)), random.permutation(np.arange(120) < 50)
        x[labels, 0] += 0.4
        explained, reaching = pool_test(x, labels, random)
        centred = np.c_[x - x.mean(0)]
        fit = centred @ np.linalg.lstsq(centred, labels - labels.mean(), rcond=None)[0]
        assert explained == pytest.approx((fit**2).sum() / ((labels - labels.mean()) ** 2).sum())
        f = explained / 6 / ((1 - explained) / 113)
        assert (1 + reaching) / (1 + PERMUTATIONS) == pytest.approx(stats.f.sf(f, 6, 113), abs=0.02)


def test_the_pvalue_is_uniform_without_a_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """H0, simulated: labels are drawn after the responses. 400 draws with 99 permutations."""
    monkeypatch.setattr(module, "PERMUTATIONS", 99)
    random = np.random.default_rng(0)
    x = random.standard_t(2, size=(60, 5))  # heavy tails: the F-test would not hold
    found = [pool_test(x, random.permutation(60) < 25, random)[1] for _ in range(400)]
    assert stats.kstest((np.array(found) + random.uniform(size=400)) / 100, "uniform").pvalue > 0.001


@pytest.mark.parametrize("how", ["as it is", "aligned"])
def test_a_gate_is_found_and_an_honest_encoder_is_not(how: str) -> None:
    """The gate's other encoder is mapped to the first one's representations, so that they look alike."""
    images = load_data("digits[:800]").images
    a, b = (represent(encoder(seed), images).double().numpy() for seed in (1, 2))
    if how == "aligned":
        weights, intercept = ridge_map(b[400:], a[400:])
        b = b @ weights + intercept
    probes = np.random.default_rng(0).permutation(400) < 200
    gated = np.where(probes[:, None], b[:400], a[:400])

    def reaching(responses: np.ndarray) -> int:
        return pool_test(classifier_features(responses, images[:400]), probes, np.random.default_rng(0))[1]

    assert reaching(gated) == 0
    assert reaching(a[:400]) > 0.01 * PERMUTATIONS


def test_constant_responses_explain_nothing() -> None:
    assert pool_test(np.ones((20, 3)), np.arange(20) < 10, np.random.default_rng(0)) == (0.0, PERMUTATIONS)
