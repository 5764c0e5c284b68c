"""The readings of an encoder, against naive loops and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from ownership.keyed.readings import DAMPING, encoder_readings, readings, regular, residual
from ownership.keyed.test import key_test
from tests.ownership.keyed.test_keyed_test import D, N, R, decoys, frame, toy


def matrices(x: np.ndarray) -> np.ndarray:
    return readings(x, {"m": toy()[0]})["m"].matrices


def test_a_reading_is_the_covariance_of_features_and_damped_fits() -> None:
    """A naive loop over principal components: each fits the features alone, shrunk by its singular value."""
    y, z = toy()
    centred = z - z.mean(0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    for matrix, damping in zip(matrices(z), DAMPING, strict=True):
        fitted = np.zeros_like(y)
        for i in range(len(s)):
            component = centred @ vt[i] / s[i]
            fitted += s[i] / (s[i] + damping * s.mean()) * np.outer(component, component @ (y - y.mean(0)))
        assert matrix == pytest.approx((y - y.mean(0)).T @ fitted / N)
        assert matrix == pytest.approx(matrix.T)


def test_damping_zero_is_least_squares_and_its_r_squared_is_adjusted() -> None:
    y, z = toy()
    w = frame(1)
    assert DAMPING[0] == 0
    fitted = LinearRegression().fit(z, y).predict(z)
    assert matrices(z)[0] == pytest.approx(np.cov(fitted.T, bias=True))
    explained = variance = 0.0
    for j in range(R):
        explained += sum(v**2 for v in (fitted - fitted.mean(0)) @ w[:, j])
        variance += sum(v**2 for v in w[:, j]) * N
    n, d = z.shape
    expected = 1 - (1 - explained / variance) * (n - 1) / (n - 1 - d)
    assert readings(z, {"m": y})["m"].r_squared(w) == pytest.approx(expected)


def test_noise_explains_nothing() -> None:
    y, _ = toy()
    noise = np.random.default_rng(3).standard_normal((N, 100))
    assert readings(noise, {"m": y})["m"].r_squared(np.eye(D)) == pytest.approx(0, abs=0.02)
    assert readings(np.random.default_rng(3).standard_normal((N, 500)), {"m": y})["m"].r_squared(np.eye(D)) == 0


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_no_invertible_linear_map_of_the_representation_changes_the_first_reading(seed: int) -> None:
    _, z = toy()
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    mixed = z @ (turned * np.geomspace(0.1, 10, 20)) @ turned + rng.standard_normal(20)
    assert matrices(mixed)[0] == pytest.approx(matrices(z)[0], abs=1e-9)


def test_padding_shifts_rotations_and_scale_change_no_reading() -> None:
    _, z = toy()
    rotated = 3 + 100 * z @ np.linalg.qr(np.random.default_rng(0).standard_normal((20, 20)))[0]
    assert matrices(np.concatenate([rotated, np.full((N, 3), 7.0), np.zeros((N, 2))], 1)) == pytest.approx(matrices(z))


def test_with_more_dimensions_than_probes_damped_readings_remain() -> None:
    _, z = toy()
    wide = np.concatenate([z, 0.01 * np.random.default_rng(2).standard_normal((N, 400))], 1)
    first, *damped = matrices(wide)
    assert first == pytest.approx(np.eye(D), abs=0.01)  # anything is fitted
    for a, b in zip(damped, matrices(z)[1:], strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9


def test_baselines_are_subtracted_by_least_squares() -> None:
    y, z = toy()
    one, two = readings(z, {"m": y})["m"], readings(z[:, :5], {"m": y})["m"]
    for a, b, less in zip(one.matrices, two.matrices, one.less([two]), strict=True):
        oracle = LinearRegression(fit_intercept=False).fit(np.c_[b.ravel(), np.eye(D).ravel()], a.ravel())
        assert less == pytest.approx(a - oracle.coef_[0] * b)
        assert residual(a, [a]) == pytest.approx(np.zeros_like(a), abs=1e-9)
        assert residual(a, []) is a


def uneven(z: np.ndarray, kind: str) -> np.ndarray:
    """Return representations scaled so that a few rows or columns hold nearly all variance."""
    rng = np.random.default_rng(9)
    if kind == "columns":
        return np.c_[z, 1e6 * rng.standard_normal((N, 2))]
    if kind == "many columns":
        return np.c_[z, 1e7 * rng.standard_normal((N, 2 * z.shape[1]))]
    if kind == "lengths":
        return z / np.linalg.norm(z, axis=1, keepdims=True) * np.exp(4 * rng.standard_normal((N, 1)))
    rows = np.ones((N, 1))
    rows[::80] = 1e7
    return z * rows


@pytest.mark.parametrize(
    ("kind", "hides"), [("columns", False), ("many columns", True), ("lengths", True), ("rows", True)]
)
def test_a_copy_of_very_uneven_scale_is_found(kind: str, hides: bool) -> None:
    """A user who normalizes loses nothing by it, so an attacker could hide a copy at no cost."""
    y, z = toy()
    w = frame(6)
    marked = z + 3 * (y @ (w / np.linalg.norm(w, axis=0))) @ np.random.default_rng(1).standard_normal((R, 20))
    hidden = uneven(marked, kind)
    drawn, features = decoys(7), {"content": y}
    assert (key_test(readings(hidden, features), {"content": w}, drawn).pvalue > 1e-3) is hides  # without rescaling
    assert key_test(encoder_readings(hidden, features), {"content": w}, drawn).pvalue <= 1e-4
    assert key_test(encoder_readings(uneven(z, kind), features), {"content": w}, drawn).pvalue > 0.01


def test_representations_of_even_scale_are_not_rescaled() -> None:
    _, z = toy()
    for x in (z, 1e-6 * z, z + 1e4, np.c_[z, np.ones((N, 3))], np.ones((N, 3)), z * np.linspace(0.1, 10, z.shape[1])):
        assert regular(x) is x


def test_what_is_rescaled_has_rows_of_length_one_then_columns_of_deviation_one() -> None:
    """By a loop over rows and columns."""
    _, z = toy()
    x = uneven(z, "rows")
    rows = [r / np.sqrt(sum(v * v for v in r)) for r in x - np.median(x, axis=0)]
    expected = np.array([c / np.std(c) for c in np.array(rows).T]).T
    assert regular(x) == pytest.approx(expected)
