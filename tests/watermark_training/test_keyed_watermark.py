"""The keyed watermark in a loop of one's own and in `train`; its key in checkpoints."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from support.encoders import encoder, same
from support.keys import key_of
from torch import nn

from ownership.encoders.images import as_input, represent
from ownership.errors import ClaimError, TrainingError
from ownership.keyed.key import Key
from ownership.keyed.pool import KeyMaterial, pool_of
from watermark_training.callbacks import Callbacks
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.device import seeded_architecture
from watermark_training.initial import keyed_seed
from watermark_training.key_material import held_out, outside_pool
from watermark_training.keyed_watermark import SHARE, SHARE_WEIGHT, KeyedWatermark
from watermark_training.loop import TrainingRun
from watermark_training.training import learning_warnings, train, weak_watermark
from watermark_training.watermark import RotationWatermark

CONFIG = TrainConfig(
    arch="tiny", epochs=2, batch_size=64, lr=2e-3, temperature=0.2, min_crop=0.3, flip=False, keyed_weight=0.3
)


@pytest.mark.heavy
def test_three_lines_in_a_loop_of_ones_own(images: torch.Tensor, material: KeyMaterial) -> None:
    """The key test finds it in the encoder on images that were not trained on, and not before."""
    model = copy.deepcopy(encoder(1))
    watermark = KeyedWatermark(64, material, fraction=1.0, weight=0.3)
    assert watermark.check(model).pvalue > 1e-3
    optimizer = torch.optim.Adam([*model.parameters(), *watermark.parameters()], lr=2e-3)
    model.train()
    for step in range(120):
        loss = watermark(model, as_input(images[64 * (step % 8) : 64 * (step % 8) + 64]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert 0.2 < watermark.r_squared < 1
    assert watermark.check(model).pvalue == 1e-5  # the floor: 99,999 other keys
    assert KeyedWatermark(64, key_of(images[1400:], secret=2)).check(model).pvalue > 1e-3


def test_views_loss_and_call_agree_with_a_naive_loop(images: torch.Tensor, material: KeyMaterial) -> None:
    model, watermark = copy.deepcopy(encoder(1)).train(), KeyedWatermark(64, material, fraction=0.3, weight=0.7)
    x = as_input(images[:20])
    shown, targets = watermark.views(x)
    assert torch.equal(shown, x[:6])
    assert torch.equal(targets, watermark.targets(x[:6]))
    representations = model(shown.expand(-1, 3, -1, -1)).detach()
    r, head = material.key.directions, watermark.head
    linear = cast(nn.Linear, head.linear[1])
    means = [float(representations[:, k].mean()) for k in range(64)]
    variances = [float(representations[:, k].var(unbiased=False)) for k in range(64)]
    scale = (sum(variances) / 64) ** 0.5
    s = (SHARE * 64 / r) ** 0.5
    errors, spreads, shares = [], [], []
    for j in range(r):
        predicted, misses = [], []
        of = [float(t) for t in targets[:, r + j]]
        for i in range(6):
            centred = [float(representations[i, k]) - means[k] for k in range(64)]
            scaled = [c / (v + 1e-5) ** 0.5 for c, v in zip(centred, variances, strict=True)]
            predicted.append(float((torch.tensor(scaled) @ linear.weight[j] + linear.bias[j]).detach()))
            at = sum(c / scale * float(head.axes[k, j]) for k, c in enumerate(centred))
            misses.append((at / s - (of[i] - sum(of) / 6)) ** 2)
        errors.append(sum((float(t) - p) ** 2 for t, p in zip(targets[:, j], predicted, strict=True)) / 6)
        spreads.append(sum(float(t - targets[:, j].mean()) ** 2 for t in targets[:, j]) / 5)
        shares.append(sum(misses) / 6)
    error, spread, share = (sum(x) / r for x in (errors, spreads, shares))
    loss = watermark.loss(representations, targets).detach()
    assert float(loss) == pytest.approx(0.7 * (error + SHARE_WEIGHT * share), rel=1e-4)
    assert float(watermark.r_squared) == pytest.approx(1 - error / spread, rel=1e-3)
    assert float(watermark(lambda _: representations, x).detach()) == pytest.approx(float(loss))


def test_targets_of_views_are_those_of_what_is_shown(images: torch.Tensor, material: KeyMaterial) -> None:
    watermark = KeyedWatermark(64, material, view=lambda x, g: (x * torch.rand(1, generator=g)).flip(-1))
    shown, targets = watermark.views(as_input(images[:64]), torch.Generator().manual_seed(0))
    assert len(shown) == 16
    assert torch.equal(targets, watermark.targets(shown))
    assert not torch.equal(targets, watermark.targets(as_input(images[:16])))


def test_a_module_that_is_stored_or_shared_holds_no_secret(material: KeyMaterial, tmp_path: Path) -> None:
    watermark = KeyedWatermark(64, material)
    assert {name.partition(".")[0] for name in watermark.state_dict()} == {"head"}
    assert {name.partition(".")[0] for name, _ in watermark.named_parameters()} == {"head"}
    before = torch.get_rng_state()
    assert same(watermark.head, KeyedWatermark(64, material).head)  # drawn from the key
    assert torch.equal(before, torch.get_rng_state())
    material.save(tmp_path)
    assert same(watermark.head, KeyedWatermark(64, tmp_path).head)
    with pytest.raises(TrainingError, match="fraction"):
        KeyedWatermark(64, material, fraction=0.0)
    with pytest.raises(ClaimError, match="key"):
        KeyedWatermark(64, tmp_path / "nothing")


def test_it_works_under_autocast(images: torch.Tensor, material: KeyMaterial) -> None:
    watermark, x = KeyedWatermark(64, material), as_input(images[:32])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = watermark(copy.deepcopy(encoder(1)), x)
        _, targets = watermark.views(x)
    assert loss.dtype == targets.dtype == torch.float32
    assert torch.equal(targets, watermark.targets(x[:8]))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_it_works_compiled(
    images: torch.Tensor, material: KeyMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder alone, and the whole loss."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    model, x = copy.deepcopy(encoder(1)).eval(), as_input(images[:32])
    plain, whole = KeyedWatermark(64, material), KeyedWatermark(64, material)
    expected = plain(model, x)
    for found in (KeyedWatermark(64, material)(torch.compile(model), x), torch.compile(whole)(model, x)):
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert float(whole.r_squared) == pytest.approx(float(plain.r_squared), rel=1e-3)


def test_a_fitted_head_is_the_ridge_regression_and_the_procrustes_rotation(
    images: torch.Tensor, material: KeyMaterial
) -> None:
    from scipy.linalg import orthogonal_procrustes
    from sklearn.linear_model import Ridge

    model, watermark, r = copy.deepcopy(encoder(1)), KeyedWatermark(64, material), material.key.directions
    watermark.fit_head(model, images[:300])
    x = represent(model, images[:300]).double()
    y = watermark.targets(as_input(images[:300])).double()
    x = x - x.mean(0)
    scaled = x / (x.var(0, unbiased=False) + 1e-5).sqrt()
    oracle = Ridge(alpha=0.1 * 300).fit(scaled.numpy(), y[:, :r].numpy())
    found = cast(nn.Linear, watermark.head.linear[1])(scaled.float()).detach().numpy()
    assert found == pytest.approx(oracle.predict(scaled.numpy()), abs=1e-3)
    # the r axes: where orthogonal_procrustes takes targets that are padded to the length of a representation
    u = y[:, r:] - y[:, r:].mean(0)
    padded = torch.cat([u, torch.zeros(300, 64 - r, dtype=u.dtype)], 1)
    rotation, _ = orthogonal_procrustes(padded.numpy(), x.numpy())
    assert watermark.head.axes.numpy() == pytest.approx(rotation[:r].T, abs=1e-4)


def test_representations_shorter_than_the_directions_are_refused(material: KeyMaterial) -> None:
    with pytest.raises(TrainingError, match="length 3 cannot hold 8 directions"):
        KeyedWatermark(3, material)


@pytest.mark.heavy
@pytest.mark.parametrize("method", ["simclr", "simsiam", "barlow"])
def test_every_method_teaches_it(method: str, images: torch.Tensor, material: KeyMaterial) -> None:
    said: list[str] = []
    config = replace(CONFIG, method=method, epochs=30, keyed_fraction=0.5)  # type: ignore[arg-type]
    trained = train(images[:320], config, material=material, callbacks=Callbacks(warn=said.append))
    assert trained.material is material
    assert (trained.key, trained.predictor) == (None, None)
    first, last = trained.metrics[0], trained.metrics[-1]
    assert last["keyed_r_squared"] > 0.15 > first["keyed_r_squared"]
    assert last["keyed_loss"] < first["keyed_loss"]
    assert trained.key_test is not None
    assert trained.key_test.pvalue <= 1e-4
    assert not [line for line in said if "keyed" in line]


@pytest.mark.heavy
@pytest.mark.parametrize("save_every", [0.0, 300.0])
@pytest.mark.parametrize("method", ["simclr", "embed"])
@pytest.mark.parametrize("given", [True, False])
def test_an_interrupted_run_ends_with_the_same_weights(
    given: bool, method: str, save_every: float, images: torch.Tensor, material: KeyMaterial, tmp_path: Path
) -> None:
    """A key that the run made itself comes back, too."""
    x, checkpoint, steps = images[:480], tmp_path / "checkpoint.pt", []
    config = replace(CONFIG, method=method, keyed_views=method == "embed")  # type: ignore[arg-type]
    start = copy.deepcopy(encoder(1)) if method == "embed" else None

    def stop(_what: str, done: int, _total: int) -> None:
        steps.append(done)
        if len(steps) == 8:  # in the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            x,
            config,
            material=material if given else None,
            start=start,
            checkpoint=checkpoint,
            save_every=save_every,
            callbacks=Callbacks(progress=stop),
        )
    stored = torch.load(checkpoint, weights_only=True)
    pool = x[held_out(len(x), config.seed)[1]]
    key = Key.from_dict(stored["keyed"])
    resumed = train(x, config, start=start, checkpoint=checkpoint, material=material if given else None)
    assert resumed.material is not None
    assert resumed.material.key == key == (material.key if given else replace(key, pool=pool_of(pool)))
    if given:
        whole = train(x, config, start=start, material=material)
        assert same(whole.encoder, resumed.encoder)
        assert whole.metrics == resumed.metrics
    with pytest.raises(TrainingError, match="unfinished run"):
        train(x, config, start=start, checkpoint=checkpoint, material=key_of(images[1400:], secret=9))


@pytest.mark.heavy
@pytest.mark.parametrize("method", ["simclr", "embed"])
def test_targets_that_are_computed_once_are_those_of_each_step(
    method: str, images: torch.Tensor, material: KeyMaterial
) -> None:
    config = replace(CONFIG, method=method, epochs=5, keyed_fraction=0.4)  # type: ignore[arg-type]
    start, ends = copy.deepcopy(encoder(1)), []
    for tabulated in (True, False):
        run = TrainingRun(config, images[:128], torch.device("cpu"), None, start, material)
        if tabulated:
            run.tabulate(images[:128])
            assert run.table is not None
        for batch in run.batches(128):
            run.step(as_input(images[batch]), batch)
        run.end_epoch()
        ends.append(run)
    assert ends[0].metrics[0] == pytest.approx(ends[1].metrics[0], rel=1e-3)


@pytest.mark.heavy
def test_images_that_are_held_out_are_not_trained_on(digits: Data) -> None:
    trained = train(digits.images[:400], replace(CONFIG, epochs=1))
    assert trained.material is not None
    kept, rest = held_out(400, CONFIG.seed)
    assert sorted(torch.cat([kept, rest]).tolist()) == list(range(400))
    assert trained.material.key.pool == pool_of(digits.images[rest])
    assert torch.equal(outside_pool(digits.images[:400], trained.material), kept)
    # what is held out decides nothing else: another picture there gives the same weights
    changed = digits.images[:400].clone()
    material = key_of(digits.images[1000:1200])
    changed[rest] = 0
    untouched = train(digits.images[:400][kept], replace(CONFIG, epochs=1), material=material)
    assert same(untouched.encoder, train(changed[kept], replace(CONFIG, epochs=1), material=material).encoder)


def test_sizes_of_what_is_held_out() -> None:
    for count, size in ((400, 100), (800, 200), (1797, 200), (10_000, 1000), (100_000, 4000)):
        kept, rest = held_out(count, 0)
        assert (len(kept), len(rest)) == (count - size, size)
        assert torch.equal(kept, held_out(count, 0)[0])
    with pytest.raises(TrainingError, match="too few to hold 100 out"):
        held_out(399, 0)


@pytest.mark.heavy
def test_a_twin_with_the_same_seed_begins_elsewhere(images: torch.Tensor, material: KeyMaterial) -> None:
    """Initial weights and order follow from the key, too: an independent encoder of equal settings shares neither."""
    other = key_of(images[1400:], secret=2)
    assert keyed_seed(0, material.key) != keyed_seed(0, other.key)
    assert keyed_seed(0, material.key) ^ keyed_seed(3, material.key) == 3
    still = replace(CONFIG, epochs=1, lr=1e-12)
    ours = train(images[:128], still, material=material)
    plain = train(images[:128], replace(still, watermark="none"))
    theirs = train(images[:128], still, material=other)
    a, b, c = (torch.nn.utils.parameters_to_vector(t.encoder.parameters()) for t in (ours, plain, theirs))
    drawn = seeded_architecture("tiny", torch.Generator().manual_seed(keyed_seed(0, material.key)))
    assert torch.allclose(a, torch.nn.utils.parameters_to_vector(drawn.parameters()), atol=1e-6)
    assert not torch.allclose(a, b, atol=1e-2)
    assert not torch.allclose(a, c, atol=1e-2)


def test_what_does_not_learn_is_said() -> None:
    row = {"epoch": 3.0, "contrastive_loss": 3.0, "keyed_r_squared": 0.01}
    assert "keyed watermark is not being learned" in learning_warnings([row])[0]
    assert learning_warnings([{**row, "keyed_r_squared": 0.2}]) == []


def test_targets_that_were_learned_by_heart_are_said() -> None:
    """ImageNet encoders predicted 0.90 of the targets of 5,000 images, and those of probes no better than before."""
    rows = [{"epoch": 8.0, "keyed_r_squared": 0.9}]
    assert "learned by heart (with the same key: --keyed-views, or more images)" in weak_watermark(0.01, rows, CONFIG)
    for said in (
        weak_watermark(0.01, [{"epoch": 8.0, "keyed_r_squared": 0.1}], CONFIG),
        weak_watermark(0.01, rows, replace(CONFIG, keyed_views=True)),
    ):
        assert "larger --keyed-weight" in said
        assert "p = 0.01 " in said


@pytest.mark.heavy
def test_a_weak_watermark_is_said_at_the_end(images: torch.Tensor, material: KeyMaterial) -> None:
    said: list[str] = []
    train(images[:64], replace(CONFIG, epochs=1), material=material, callbacks=Callbacks(warn=said.append))
    assert "the key test on the encoder itself gives p = " in said[-1]
    assert "with the same key" in said[-1]


@pytest.mark.heavy
def test_an_embedding_that_destroys_the_representations_is_said(images: torch.Tensor, material: KeyMaterial) -> None:
    """At the default learning rate MobileNetV2's representations moved by 1.4 of their variance."""
    said: dict[float, list[str]] = {0.01: [], 1e-5: []}
    for lr, lines in said.items():
        config = replace(CONFIG, method="embed", epochs=1, lr=lr)
        train(images[:128], config, material=material, start=encoder(1), callbacks=Callbacks(warn=lines.append))
    assert "representations moved by " in said[0.01][-1]
    assert "lower --lr" in said[0.01][-1]
    assert not any("moved" in line for line in said[1e-5])


def test_a_key_for_another_watermark_is_refused(digits: Data, material: KeyMaterial) -> None:
    with pytest.raises(TrainingError, match="not one for the watermark none"):
        train(digits.images[:64], replace(CONFIG, watermark="none"), material=material)
    with pytest.raises(TrainingError, match="not one for the watermark keyed"):
        train(digits.images[:64], CONFIG, key=RotationWatermark(8).key)
    with pytest.raises(TrainingError, match="the key is for images of 16 x 16"):
        train(torch.zeros(64, 3, 32, 32, dtype=torch.uint8), CONFIG, material=material)
    for change in ({"keyed_fraction": 1.1}, {"keyed_weight": 0.0}, {"watermark": "secret", "rotate": True}):
        with pytest.raises(TrainingError):
            replace(CONFIG, **change)  # type: ignore[arg-type]
    replace(CONFIG, rotate=True)


def test_without_a_share_the_linear_head_predicts_the_targets_of_both_maps(
    images: torch.Tensor, material: KeyMaterial
) -> None:
    watermark, x = KeyedWatermark(64, material, share=None, fraction=1.0), as_input(images[:32])
    representations = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    predicted, _ = watermark.head(representations)
    targets = watermark.targets(x)
    error = sum(float(e) for e in (predicted - targets).square().detach().flatten()) / targets.numel()
    assert predicted.shape == targets.shape
    assert float(watermark.loss(representations, targets).detach()) == pytest.approx(0.1 * 2 * error, rel=1e-4)
    watermark.fit_head(copy.deepcopy(encoder(1)), images[:100])  # no axes to fit
