"""Partial regression: its residuals by a naive regression, its invariance, and what wrappers do to copies and others.

H0: the suspect is one more independent encoder. H1: it predicts what is specific to the victim. Unit: one encoder.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from support.encoders import Noisy, encoder
from support.sampling import examples

from ownership.claims.claim import Claim
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import EncoderLike, represent
from ownership.errors import ClaimError
from ownership.evidence.partial_regression import BASELINE_PENALTY, PENALTY, partial_regression, residuals, share
from ownership.evidence.querying import query
from ownership.evidence.responses import NotApplicable, Responses
from ownership.evidence.similarity import directions
from ownership.plan import Plan

Array = NDArray[np.float64]


def score(of: Array, claim: Claim) -> float:
    return partial_regression(Responses("x", {"public": of.astype(np.float32)}), claim.context)


def responses(of: EncoderLike, claim: Claim) -> Array:
    return represent(of, claim.probes["public"]).double().numpy()


def highest(claim: Claim) -> float:
    return max(claim.panel_scores.members["partial_regression"].values())


def test_the_residuals_are_those_of_a_ridge_regression() -> None:
    random = np.random.default_rng(0)
    encoders = [directions(random.normal(size=(60, 6))) for _ in range(4)]
    baselines = [directions(random.normal(size=(60, 5)))]
    for k, found in enumerate(residuals(encoders, baselines)):
        others = [w / PENALTY**0.5 for i, w in enumerate(encoders) if i != k]
        given = np.concatenate([*others, baselines[0] / BASELINE_PENALTY**0.5], axis=1)
        fit = Ridge(alpha=1.0, fit_intercept=False).fit(given, encoders[k])
        np.testing.assert_allclose(found, encoders[k] - fit.predict(given), atol=1e-10)


def test_the_share_of_unrelated_directions_is_zero_on_average() -> None:
    """H0: nothing is predicted. The adjusted share has mean 0 whatever the number of directions."""
    random = np.random.default_rng(1)
    for columns in (3, 40):
        found = [
            share(directions(random.normal(size=(80, 8))), directions(random.normal(size=(80, columns))))
            for _ in range(200)
        ]
        assert abs(np.mean(found)) < 4 * np.std(found) / 200**0.5
    itself = directions(random.normal(size=(80, 8)))
    assert share(itself, itself) == pytest.approx(1)


def test_a_copy_exceeds_the_panel_and_an_independent_encoder_does_not(claim: Claim, victim: Encoder) -> None:
    near, far = (score(responses(Noisy(victim, 1, amount), claim), claim) for amount in (0.01, 1.0))
    assert near > far > highest(claim)
    assert score(responses(encoder(99), claim), claim) < highest(claim) + 3


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-3, 1.0, 1e3]), spread=st.floats(0, 2))
@examples(10)
def test_no_invertible_linear_map_changes_it(
    claim: Claim, victim: Encoder, seed: int, scale: float, spread: float
) -> None:
    x, random = responses(Noisy(victim, 2, 0.5), claim), np.random.default_rng(seed)
    q, r = (np.linalg.qr(random.normal(size=(x.shape[1],) * 2))[0] for _ in range(2))
    mapped = scale * x @ (q * 10 ** random.uniform(-spread / 2, spread / 2, len(q))) @ r
    assert score(mapped, claim) == pytest.approx(score(x, claim), rel=1e-3, abs=1e-3)


def test_appended_columns_hide_no_copy_and_make_no_false_positive(claim: Claim, victim: Encoder) -> None:
    """Appended columns as large as they like: an encoder of the attacker's own, noise, and pixels."""
    copy, other, own = (responses(e, claim) for e in (Noisy(victim, 3, 0.2), encoder(98), encoder(97)))
    pixels = claim.probes["public"].double().flatten(1).numpy()[:, ::12]
    noise = np.random.default_rng(0).normal(size=(len(copy), 40))
    for columns in (own, noise, pixels):
        beside = 10 * columns / columns.std() * copy.std()
        assert score(np.c_[copy, beside], claim) > highest(claim) + 1
        assert score(np.c_[other, beside], claim) < highest(claim) + 3


def test_what_cannot_be_read_is_said(claim: Claim, victim: Encoder) -> None:
    probes = len(claim.probes["public"])
    wide = np.random.default_rng(0).normal(size=(probes, 2 * probes))
    with pytest.raises(NotApplicable, match="independent numbers for"):
        score(wide, claim)
    with pytest.raises(NotApplicable, match="0 independent numbers"):
        score(np.ones((probes, 4)), claim)


def test_it_is_secondary(claim: Claim, victim: Encoder) -> None:
    with pytest.raises(ClaimError, match="cannot be primary"):
        Plan(primary=("partial_regression",))
    swapped: EncoderLike = lambda x: torch.flip(victim(x), [1])  # noqa: E731
    found = query(swapped, claim.probes, "x")
    assert partial_regression(found, claim.context) > highest(claim)
