"""H0: the suspect does not depend on the key's frames. H1: it predicts the marked directions better. Unit: the key."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.random import RandomState
from scipy import stats

from ownership.errors import ClaimError
from ownership.keyed.key import Key, Pool
from ownership.keyed.maps import MAPS, Targets, feature_count, whitening
from ownership.keyed.pool import KeyMaterial
from ownership.keyed.readings import readings
from ownership.keyed.test import decoy_frames, key_test, largest_z, moments

N, D, R = 240, 30, 4


@cache
def toy() -> tuple[np.ndarray, np.ndarray]:
    """Features, and representations that know some of them better than others, as any encoder does."""
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((N, D))
    y = whitening(raw, 0, D)(torch.from_numpy(raw).float()).double().numpy()
    mixing = rng.standard_normal((D, 20)) * np.linspace(2, 0.1, D)[:, None]
    return y, y @ mixing + 3 * rng.standard_normal((N, 20))


def frame(seed: int) -> np.ndarray:
    return RandomState(seed).standard_normal((D, R))


def decoys(seed: int, count: int = 99_999) -> dict[str, list[np.ndarray]]:
    return {"content": list(decoy_frames(RandomState(seed), D, R, count))}


def naive_z(matrix: np.ndarray, w: np.ndarray) -> float:
    """The oracle: the score of a frame, standardized by its moments."""
    mean, sd = moments(np.linalg.eigvalsh(matrix), R)
    return float((np.trace(w.T @ matrix @ w) / np.trace(w.T @ w) - mean) / sd)


def test_decoys_have_the_expectation_and_spread_of_the_moments() -> None:
    y, z = toy()
    for matrix in readings(z, {"content": y})["content"].less([]):
        drawn = [naive_z(matrix, frame(seed)) for seed in range(2000)]
        assert np.mean(drawn) == pytest.approx(0, abs=0.1)
        assert np.std(drawn) == pytest.approx(1, abs=0.06)


def test_the_largest_reading_counts() -> None:
    y, z = toy()
    matrices = list(readings(z, {"content": y})["content"].less([]))
    frames = next(decoy_frames(RandomState(0), D, R, 50))
    assert frames.shape == (50, R, D)
    expected = [max(naive_z(m, w.T.astype(np.float64)) for m in matrices) for w in frames]
    assert largest_z(matrices, frames) == pytest.approx(np.array(expected), abs=1e-3)


def test_p_is_that_of_scipys_monte_carlo_test_on_the_same_draws() -> None:
    y, z = toy()
    matrices, count = readings(z, {"content": y}), 499
    result = key_test(matrices, {"content": frame(3)}, decoys(4, 499))
    both = list(matrices["content"].less([]))
    drawn = [max(naive_z(m, w.T.astype(np.float64)) for m in both) for w in decoys(4, count)["content"][0]]
    own = max(naive_z(m, frame(3)) for m in both)
    draws = iter([np.array(drawn)])
    oracle = stats.monte_carlo_test(
        [own],
        rvs=lambda size: next(draws).reshape(size),
        statistic=lambda x, axis=-1: np.maximum(x.max(axis), 0) ** 2,
        n_resamples=count,
        alternative="greater",
    )
    assert result.pvalue == pytest.approx(oracle.pvalue)


@pytest.mark.parametrize("dependent", [False, True])
def test_size_is_exact_for_any_suspect(dependent: bool) -> None:
    """H0 holds: the suspect is fixed, whatever it knows of the features; 2,000 keys. Two maps joined, or one."""
    y, z = toy()
    features = {"content": y} | ({"invariant": np.roll(y, 7, 1)} if dependent else {})
    matrices, draws, ps = readings(z, features), RandomState(5), []
    for _ in range(2000):
        frames = {name: draws.standard_normal((D, R)) for name in features}
        drawn = {name: list(decoy_frames(draws, D, R, 99)) for name in features}
        ps.append(key_test(matrices, frames, drawn).pvalue)
    for alpha in (0.01, 0.05, 0.1, 0.5):
        assert stats.binomtest(int((np.array(ps) <= alpha).sum()), 2000, alpha).pvalue > 0.001


def test_a_marked_suspect_is_found_and_baselines_sharpen_it() -> None:
    y, z = toy()
    w = frame(6)
    marked = z + 3 * (y @ (w / np.linalg.norm(w, axis=0))) @ np.random.default_rng(1).standard_normal((R, 20))
    plain, found = readings(z, {"content": y}), readings(marked, {"content": y})
    alone = key_test(found, {"content": w}, decoys(7))
    less = key_test(found, {"content": w}, decoys(7), baselines=[plain])
    assert alone.pvalue < 1e-3
    assert less.maps["content"].z > alone.maps["content"].z
    assert key_test(plain, {"content": w}, decoys(7)).pvalue > 0.01


def test_a_suspect_that_answers_the_same_for_all_images_scores_nothing() -> None:
    y, _ = toy()
    result = key_test(readings(np.ones((N, 5)), {"content": y}), {"content": frame(8)}, decoys(8))
    assert result.maps["content"].z == 0
    assert result.pvalue == 1


IMAGES = torch.randint(0, 256, (160, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
KEY = Key(secret=bytes(32), pool=Pool(sha256="", images=160, shape=(3, 20, 20)), probes=160)


def material(key: Key, images: torch.Tensor) -> KeyMaterial:
    return KeyMaterial(key=key, probes=images, digests=b"")


@cache
def targets() -> Targets:
    return Targets(material(KEY, IMAGES))


def test_features_are_uncorrelated_on_the_probes() -> None:
    for name in MAPS:
        y = targets().features()[name]
        assert y.shape == (160, feature_count(name, 160))
        assert np.cov(y.T, bias=True) == pytest.approx(np.eye(y.shape[1]), abs=1e-3)


def test_targets_are_the_features_along_the_frame() -> None:
    x = IMAGES[:9].float() / 255
    columns = targets()(x)
    at = 0
    for name in MAPS:
        w = targets().frame(name)
        expected = targets().features()[name][:9] @ (w / np.linalg.norm(w, axis=0))
        assert columns[:, at : at + w.shape[1]].numpy() == pytest.approx(expected, abs=1e-4)
        at += w.shape[1]
    assert columns.shape == (9, at)


def test_another_secret_gives_other_maps_and_other_frames() -> None:
    other = Targets(material(Key(secret=bytes([1]) * 32, pool=KEY.pool, probes=160), IMAGES))
    for name in MAPS:
        assert abs(np.corrcoef(other.frame(name).ravel(), targets().frame(name).ravel())[0, 1]) < 0.4
        assert not np.allclose(other.features()[name], targets().features()[name])


def test_a_quarter_turn_changes_the_content_map_and_hardly_the_invariant_one() -> None:
    x = IMAGES.float() / 255
    turned = x.rot90(1, (2, 3))
    source = targets().invariant.source
    assert source is not None
    assert source(turned)[:, 1].numpy() == pytest.approx(source(x)[:, 1].numpy(), rel=0.02)
    content = targets().content.pooled
    assert float((content(turned) - content(x)).norm() / content(x).norm()) > 0.1


@pytest.mark.parametrize("images", [IMAGES[:99], IMAGES[:, :1], IMAGES[:, :, :19]])
def test_probes_of_another_shape_or_too_few_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ClaimError):
        Targets(material(KEY, images))


def test_images_that_are_all_alike_are_refused() -> None:
    with pytest.raises(ClaimError, match="alike"):
        Targets(material(KEY, IMAGES[:1].expand(160, -1, -1, -1)))


def test_no_state_dict_holds_what_follows_from_the_secret() -> None:
    assert not targets().state_dict()
    assert not list(targets().parameters())
    assert {b.dtype for b in targets().buffers()} == {torch.float32}  # the widest that some devices have
