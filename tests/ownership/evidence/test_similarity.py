"""Each similarity against a naive loop; invariances that rule 6 promises."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from ownership.evidence.similarity import (
    Structure,
    covariance,
    linear_cka,
    partial_correlation,
    partial_correlations,
    raw_l2,
    ridge_map,
    rsa_vector,
    whiten,
)


def _data(seed: int = 0, n: int = 60, d: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def test_cka_is_hsic_by_definition() -> None:
    """Kornblith et al. 2019: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with centring matrices, entry by entry."""
    x, y = _data(0), _data(1, d=7)
    n = len(x)
    h = np.eye(n) - 1 / n

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        k, m = h @ (a @ a.T) @ h, h @ (b @ b.T) @ h
        return sum(k[i, j] * m[i, j] for i in range(n) for j in range(n))

    assert linear_cka(x, y) == pytest.approx(hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)))
    assert linear_cka(x, x) == pytest.approx(1)
    assert linear_cka(x, np.ones_like(y)) == 0


def test_ridge_map_is_sklearns_ridge() -> None:
    x, y = _data(2), _data(3, d=5)
    weights, intercept = ridge_map(x, y, 0.1)
    strength = 0.1 * ((x - x.mean(0)) ** 2).sum() / x.shape[1]
    expected = Ridge(alpha=strength).fit(x, y)
    np.testing.assert_allclose(x @ weights + intercept, expected.predict(x), rtol=1e-6)


def test_raw_l2_is_a_loop() -> None:
    x, y = _data(4), _data(5)
    expected = [np.sqrt(sum((a - b) ** 2 for a, b in zip(p, q, strict=True))) for p, q in zip(x, y, strict=True)]
    np.testing.assert_allclose(raw_l2(x, y), expected)


def test_whiten_by_eigenvectors() -> None:
    """The Gram matrix of the whitened data, from the eigenvectors of the covariance instead of the SVD."""
    x, k, c = _data(6), 4, 0.01
    centred = x - x.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
    expected = centred @ vectors @ np.diag(1 / np.sqrt(values + c * values.mean())) @ vectors.T
    w = whiten(x, k, c)
    assert w.shape == (60, 4)
    np.testing.assert_allclose(w @ w.T, expected @ expected.T, atol=1e-8)


def test_partial_rsa_is_the_naive_regression() -> None:
    """Gram entries by a double loop, residuals by ordinary least squares, their correlation by NumPy."""
    xs = [_data(10 + i, n=25, d=6) for i in range(5)]
    xs[1] = xs[0] + 0.5 * xs[1]
    vectors = []
    for x in xs:
        w = whiten(x, 4, 0.001)
        vectors.append([float(w[i] @ w[j]) for i in range(25) for j in range(i + 1, 25)])
    columns = np.array(vectors).T
    panel = columns[:, 2:]
    residuals = [columns[:, i] - LinearRegression().fit(panel, columns[:, i]).predict(panel) for i in (0, 1)]
    expected = np.corrcoef(*residuals)[0, 1]
    fast = partial_correlation(covariance([Structure(rsa_vector(x, 4, 0.001)) for x in xs]), 0, 1, [2, 3, 4])
    assert fast == pytest.approx(expected, abs=1e-5)


def test_partial_correlation_with_nothing_given_is_the_correlation() -> None:
    x = np.random.default_rng(7).normal(size=(2, 200)).astype(np.float32)
    assert partial_correlation(covariance([Structure(v) for v in x]), 0, 1, []) == pytest.approx(
        np.corrcoef(x)[0, 1], abs=1e-6
    )


def test_partial_correlation_of_what_the_panel_explains_is_nan() -> None:
    x = np.random.default_rng(8).normal(size=(3, 200)).astype(np.float32)
    a, b, c = (Structure(v) for v in x)
    cov = covariance([a, b, Structure(x[1]), c])
    assert np.isnan(partial_correlation(cov, 0, 1, [2, 3]))


@pytest.mark.parametrize("change", ["permute", "rotate", "scale", "shift", "pad", "project up"])
def test_rsa_survives_a_change_of_basis(change: str) -> None:
    rng = np.random.default_rng(9)
    x = _data(9)
    changed = {
        "permute": lambda: x[:, rng.permutation(12)],
        "rotate": lambda: x @ np.linalg.qr(rng.normal(size=(12, 12)))[0],
        "scale": lambda: 37.0 * x,
        "shift": lambda: x + rng.normal(size=12),
        "pad": lambda: np.hstack([x, np.full((60, 20), 2.5)]),
        "project up": lambda: x @ np.linalg.qr(rng.normal(size=(30, 12)))[0].T,
    }[change]()
    np.testing.assert_allclose(rsa_vector(changed, 6), rsa_vector(x, 6), atol=1e-5)


def test_partial_correlations_are_those_of_one_pair_at_a_time() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((6, 500)) + 0.5 * rng.standard_normal(500)
    cov = np.cov(x)
    got = partial_correlations(cov, 2)
    for value, j in zip(got, [0, 1, 3, 4, 5], strict=True):
        given = [k for k in range(6) if k not in (2, j)]
        assert value == pytest.approx(partial_correlation(cov, 2, j, given), abs=1e-4)
    twins = np.cov(np.vstack([x, x[2]]))
    assert partial_correlations(twins, 2)[-1] > 0.99
