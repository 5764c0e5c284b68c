"""Cross-fitted regression of the test of twins, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from ownership.keyed.regression import FOLDS, HALF, RAW, WHITE, _candidates, cross_fitted
from tests.ownership.keyed.test_keyed_test import N, toy


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_no_invertible_linear_map_of_the_representation_changes_whitened_predictions(seed: int) -> None:
    y, z = toy()
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    mixed = z @ (turned * np.geomspace(0.1, 10, 20)) @ turned + rng.standard_normal(20)
    whitened = slice(-len(WHITE), None)
    assert _candidates(mixed[60:], y[60:], mixed[:60])[whitened] == pytest.approx(
        _candidates(z[60:], y[60:], z[:60])[whitened], abs=1e-6
    )


def test_padding_duplicates_and_scale_change_no_prediction() -> None:
    y, z = toy()
    padded = np.concatenate([z, np.full((N, 3), 7.0), np.zeros((N, 2))], 1) * 100
    assert cross_fitted(padded, y) == pytest.approx(cross_fitted(z, y), abs=1e-6)


def test_the_candidates_are_ridge_regressions() -> None:
    y, z = toy()
    x, new = z[60:], z[:60]
    s = np.linalg.svd(x - x.mean(0), compute_uv=False)
    for i, penalty in enumerate(RAW):
        oracle = Ridge(alpha=penalty * (s**2).mean()).fit(x, y[60:])
        assert _candidates(x, y[60:], new)[i] == pytest.approx(oracle.predict(new) - y[60:].mean(0), abs=1e-8)


def test_the_candidates_between_are_ridge_regressions_on_roots_of_singular_values() -> None:
    y, z = toy()
    x, new = z[60:], z[:60]
    _, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
    root, root_new = ((a - x.mean(0)) @ vt.T / np.sqrt(s) for a in (x, new))
    for i, penalty in enumerate(HALF):
        oracle = Ridge(alpha=penalty * s.mean()).fit(root, y[60:])
        expected = oracle.predict(root_new) - y[60:].mean(0)
        assert _candidates(x, y[60:], new)[len(RAW) + i] == pytest.approx(expected, abs=1e-8)


def test_more_dimensions_than_probes_are_read() -> None:
    y, z = toy()
    wide = np.concatenate([z, 0.01 * np.random.default_rng(2).standard_normal((N, 400))], 1)
    assert float(((y - cross_fitted(wide, y)) ** 2).mean()) < 0.9 * float((y**2).mean())


def test_no_row_is_predicted_from_itself() -> None:
    # noise predicts nothing: in-sample predictions would
    y, _ = toy()
    noise = np.random.default_rng(3).standard_normal((N, 100))
    assert 1 - ((y - cross_fitted(noise, y)) ** 2).sum() / (y**2).sum() < 0.05
    assert FOLDS > 1
