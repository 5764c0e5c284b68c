"""The watermark in a custom training loop, and retrofitted to a trained encoder."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from support.encoders import encoder

from ownership.encoders.architectures import ARCHITECTURES
from ownership.encoders.images import as_input, as_uint8, represent
from ownership.errors import OwnershipError, TrainingError
from ownership.suspects.suspect import load_encoder
from ownership.watermark import RotationPredictor, WatermarkKey, rotated_pairs
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.embed import embed_to
from watermark_training.loaded_encoder import LoadedEncoder, load_trained
from watermark_training.losses import feature_preservation_loss
from watermark_training.train_folder import describe_data, save_trained
from watermark_training.training import Trained, train
from watermark_training.watermark import RotationWatermark, fitted_predictor, save_predictor, watermark_rate


@pytest.mark.heavy
def test_three_lines_in_a_loop_of_ones_own(digits: Data, key: WatermarkKey, tmp_path: Path) -> None:
    """A plain loop without any other loss: the watermark is detected afterwards, on images that were not trained on."""
    model = copy.deepcopy(encoder(1))  # others use that one untrained
    watermark = RotationWatermark(64, key, fraction=1.0)
    optimizer = torch.optim.Adam([*model.parameters(), *watermark.parameters()], lr=2e-3)
    model.train()
    for step in range(120):
        loss = watermark(model, as_input(digits.images[64 * (step % 8) : 64 * (step % 8) + 64]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert watermark.accuracy > 0.75
    watermark.save(tmp_path / "predictor.safetensors")
    assert (tmp_path / "predictor.safetensors").stat().st_mode & 0o777 == 0o600
    views, labels, _ = rotated_pairs(as_input(digits.images[900:1100]), key, torch.Generator().manual_seed(0))
    read = watermark.predictor(represent(model, as_uint8(views))).argmax(1)
    assert float((read == labels).float().mean()) > 0.75


def test_a_predictor_fitted_anew_reads_the_finished_encoder(digits: Data, trained: Trained, key: WatermarkKey) -> None:
    """It tells views of other images apart, better than the untrained one; the same inputs give the same weights."""
    victim = trained.encoder
    before = {k: v.clone() for k, v in victim.state_dict().items()}
    fitted = fitted_predictor(victim, key, digits.images[:256])
    single = fitted_predictor(victim, key, digits.images[:256], pairs=False)
    views, labels, _ = rotated_pairs(as_input(digits.images[900:1100]), key, torch.Generator().manual_seed(0))
    unrotated = represent(victim, digits.images[900:1100])
    responses = torch.cat([represent(victim, as_uint8(views)), unrotated.repeat(2, 1)], 1)

    def rate(predictor: RotationPredictor) -> float:
        with torch.no_grad():
            shown = responses if predictor.pairs else responses[:, :64]
            return float((predictor(shown).argmax(1) == labels).float().mean())

    untrained = (RotationPredictor(64, key.predictor_seed, pairs=pairs) for pairs in (False, True))
    for predictor in (fitted, single):
        assert watermark_rate(victim, predictor, key, digits.images[900:1100]) == rate(predictor)
    assert rate(fitted) > rate(single) > max(0.75, *map(rate, untrained))
    again = RotationWatermark(64, key)
    again.refit(victim, digits.images[:256])
    for mine, same in zip(fitted.state_dict().values(), again.predictor.state_dict().values(), strict=True):
        assert torch.equal(mine, same)
    assert all(torch.equal(before[k], v) for k, v in victim.state_dict().items())


@pytest.mark.heavy
def test_a_fitted_predictor_relies_on_what_many_directions_agree_on() -> None:
    """One direction of low variance separates the rotations perfectly, 60 others separate them weakly.

    An inaccurate copy lacks the first one. A predictor fitted without noise is accurate on the original, but not on
    the copy.
    """
    key = WatermarkKey(sector_boundaries=(0.0, math.pi), margin=0.3, predictor_seed=0)
    across = torch.linspace(-1, 1, 16).expand(16, 16)
    images = (127 + 127 * across).to(torch.uint8).expand(1000, 1, 16, 16)
    g = torch.Generator().manual_seed(1)

    def respond(x: torch.Tensor, faint: float) -> torch.Tensor:
        kind = (x.mean(1) * across.T).sum((1, 2)).sign()[:, None]  # rotated by less than 180 degrees, or more
        strong = torch.randn(len(x), 60, generator=g) + 0.1 * kind
        return torch.cat([faint * kind, strong], 1)

    views, labels, _ = rotated_pairs(as_input(images), key, g)

    def rate(predictor: RotationPredictor, faint: float) -> float:
        with torch.inference_mode():
            read = predictor(represent(lambda x: respond(x, faint), as_uint8(views))).argmax(1)
        return float((read == labels).float().mean())

    fitted = fitted_predictor(lambda x: respond(x, 0.5), key, images, pairs=False)
    assert rate(fitted, 0.5) > 0.85
    assert rate(fitted, 0.0) > 0.74
    clean = fitted_predictor(lambda x: respond(x, 0.5), key, images, noise=0.0, pairs=False)
    assert rate(clean, 0.5) > rate(fitted, 0.5)
    assert rate(clean, 0.0) < rate(fitted, 0.0)


@pytest.mark.heavy
def test_a_predictor_fitted_with_a_base_encoder_is_unsure_of_its_responses() -> None:
    """Both encoders represent the kind of rotation in one direction, the fitted one in a second direction too.

    On the base encoder the predictor gives nearly equal odds; they may be slightly correct.
    """
    key = WatermarkKey(sector_boundaries=(0.0, math.pi), margin=0.3, predictor_seed=0)
    across = torch.linspace(-1, 1, 16).expand(16, 16)
    images = (127 + 127 * across).to(torch.uint8).expand(1000, 1, 16, 16)
    g = torch.Generator().manual_seed(1)

    def respond(x: torch.Tensor, own: float) -> torch.Tensor:
        kind = (x.mean(1) * across.T).sum((1, 2)).sign()[:, None]
        return torch.cat([2 * kind, own * kind, 0.5 * torch.randn(len(x), 6, generator=g)], 1)

    views, labels, _ = rotated_pairs(as_input(images), key, g)

    def sureness(predictor: RotationPredictor, own: float) -> float:
        with torch.inference_mode():
            odds = predictor(represent(lambda x: respond(x, own), as_uint8(views))).log_softmax(1)
        return float(odds.gather(1, labels[:, None]).exp().mean())

    plain = fitted_predictor(lambda x: respond(x, 1.0), key, images, pairs=False)
    against = fitted_predictor(
        lambda x: respond(x, 1.0), key, images, pairs=False, base_encoder=lambda x: respond(x, 0.0)
    )
    assert sureness(plain, 0.0) > 0.9
    assert sureness(against, 0.0) < 0.7
    assert sureness(against, 1.0) > sureness(against, 0.0) + 0.1


def test_fitting_anew_leaves_a_frozen_predictor_alone(digits: Data, key: WatermarkKey) -> None:
    frozen = RotationWatermark(64, key, train_predictor=False)
    before = {k: v.clone() for k, v in frozen.predictor.state_dict().items()}
    frozen.refit(encoder(1), digits.images[:32])
    assert all(torch.equal(v, before[k]) for k, v in frozen.predictor.state_dict().items())


@pytest.mark.heavy
def test_a_trained_predictor_is_fitted_anew_against_what_it_went_on_from(digits: Data, key: WatermarkKey) -> None:
    config = TrainConfig(arch="tiny", epochs=1, batch_size=64, watermark="secret", watermark_fraction=0.5)
    images = digits.images[:128]
    fresh = train(images, config, key=key)
    assert fresh.predictor is not None
    assert _apart(fresh.predictor, fitted_predictor(fresh.encoder, key, images)) < 1e-3
    start = encoder(3)
    grown = train(images, config, key=key, start=start)
    assert grown.predictor is not None
    # after one epoch the two are hardly apart, and last digits count for more
    fitted = [fitted_predictor(grown.encoder, key, images, base_encoder=x) for x in (start, None)]
    assert _apart(grown.predictor, fitted[0]) < _apart(grown.predictor, fitted[1]) / 3
    kept = train(images, replace(config, predictor="frozen"), key=key)
    assert kept.predictor is not None
    assert not kept.predictor.pairs
    assert _apart(kept.predictor, fitted_predictor(kept.encoder, key, images, pairs=False)) > 0.02


def _apart(a: RotationPredictor, b: RotationPredictor) -> float:
    """Largest difference of two predictors' weights; training ran in another memory format, so last digits differ."""
    with torch.no_grad():
        return max(float((x - y).abs().max()) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_views_loss_and_call_agree_with_a_naive_loop(digits: Data, key: WatermarkKey) -> None:
    model, watermark = encoder(1), RotationWatermark(64, key, fraction=0.3, weight=0.7)
    images = as_input(digits.images[:10])
    views, labels = watermark.views(images, torch.Generator().manual_seed(3))
    assert len(views) == len(labels) == 2 * math.ceil(0.3 * 10)
    expected, hits = 0.0, 0
    for view, label in zip(views, labels, strict=True):
        logits = watermark.predictor(model(view[None].expand(-1, 3, -1, -1)))[0].detach()
        expected += float(torch.logsumexp(logits, 0) - logits[label])
        hits += int(logits.argmax() == label)
    got = watermark.loss(model(views.expand(-1, 3, -1, -1)), labels)
    assert got.item() == pytest.approx(0.7 * expected / len(views), rel=1e-4)
    assert float(watermark.accuracy) == pytest.approx(hits / len(views))


def test_keys_are_fresh_and_a_frozen_predictor_stays(key: WatermarkKey) -> None:
    assert RotationWatermark(8).key != RotationWatermark(8).key
    frozen = RotationWatermark(8, key, train_predictor=False)
    assert not any(p.requires_grad for p in frozen.parameters())
    with pytest.raises(TrainingError, match="fraction"):
        RotationWatermark(8, key, fraction=0.0)


def test_feature_preservation_loss_against_a_naive_loop() -> None:
    g = torch.Generator().manual_seed(0)
    now, before = torch.randn(7, 5, generator=g), torch.randn(7, 5, generator=g)
    mean = [sum(float(b[j]) for b in before) / 7 for j in range(5)]
    moved = sum((float(a[j]) - float(b[j])) ** 2 for a, b in zip(now, before, strict=True) for j in range(5)) / 7
    spread = sum((float(b[j]) - mean[j]) ** 2 for b in before for j in range(5)) / 7
    assert float(feature_preservation_loss(now, before)) == pytest.approx(moved / spread, rel=1e-5)
    assert float(feature_preservation_loss(before, before)) == 0


def _known(trained: Trained) -> LoadedEncoder:
    return LoadedEncoder(
        encoder=trained.encoder, sha256="ab" * 32, architecture="tiny", config={"train": {"min_crop": 0.3}}
    )


@pytest.mark.slow
def test_embedding_adds_the_watermark_and_preserves_the_representations(digits: Data, tmp_path: Path) -> None:
    plain = train(
        digits.images[:256],
        TrainConfig(arch="tiny", watermark="none", epochs=15, batch_size=64, lr=2e-3, temperature=0.2, flip=False),
    )
    folder = tmp_path / "watermarked"
    changes = {"watermark": "secret", "epochs": 30, "batch_size": 32, "lr": 1e-3, "watermark_weight": 0.1}
    data = Data(name="d", images=digits.images[:512], labels=None)
    assert embed_to(folder, replace(_known(plain), projection_head=plain.projection_head), data, changes).created
    assert not embed_to(folder, _known(plain), data, changes).created
    assert not (folder / "encoder.onnx").exists()
    with pytest.raises(TrainingError, match="another configuration"):
        embed_to(folder, replace(_known(plain), sha256="cd" * 32), data, changes)
    watermarked = load_trained(folder)
    assert watermarked.key is not None
    assert watermarked.predictor is not None
    assert watermarked.projection_head is not None
    stated = json.loads((folder / "config.json").read_text())
    assert stated["base_checkpoint"] == "ab" * 32
    assert (stated["train"]["method"], stated["train"]["min_crop"]) == ("embed", 0.3)
    assert str(watermarked.key.sector_boundaries[0]) not in (folder / "config.json").read_text()
    held_out = digits.images[900:1300]
    moved = float(
        feature_preservation_loss(represent(watermarked.encoder, held_out), represent(plain.encoder, held_out))
    )
    assert moved < 0.05
    assert watermarked.predictor.pairs
    assert watermark_rate(watermarked.encoder, watermarked.predictor, watermarked.key, held_out) > 0.9
    # statistics of rotated images stay out of the normalization
    for (name, a), b in zip(
        load_encoder(folder / "encoder.safetensors").encoder.state_dict().items(),  # type: ignore[attr-defined]
        plain.encoder.state_dict().values(),
        strict=True,
    ):
        assert "running" not in name or torch.equal(a, b)


def test_what_cannot_be_embedded(digits: Data, trained: Trained, tmp_path: Path) -> None:
    data = Data(name="d", images=digits.images[:64], labels=None)
    foreign = replace(_known(trained), encoder=torch.nn.Flatten())
    with pytest.raises(TrainingError, match="known architecture"):
        embed_to(tmp_path / "x", foreign, data, {})
    with pytest.raises(TrainingError, match="no encoder to embed"):
        train(data.images, TrainConfig(arch="tiny", method="embed", watermark="secret"))
    with pytest.raises(TrainingError, match="nothing to embed"):
        TrainConfig(arch="tiny", method="embed", watermark="none")


def test_the_papers_resnet34_has_the_papers_parameters() -> None:
    """Appendix F: 21,276,992 parameters, 512 numbers."""
    network = ARCHITECTURES["resnet34"]()
    assert sum(p.numel() for p in network.parameters()) == 21_276_992
    assert network.dim == 512


@pytest.mark.heavy
def test_training_with_a_frozen_predictor(digits: Data, key: WatermarkKey) -> None:
    """The predictor keeps the weights drawn from the key; only the encoder is trained."""
    config = TrainConfig(
        arch="tiny",
        epochs=25,
        batch_size=64,
        lr=2e-3,
        temperature=0.2,
        watermark="secret",
        watermark_fraction=0.5,
        watermark_weight=2.0,
        flip=False,
    )
    frozen = train(digits.images[:256], replace(config, predictor="frozen"), key=key)
    assert frozen.predictor is not None
    drawn = RotationPredictor(64, key.predictor_seed).state_dict()
    assert all(torch.equal(v, drawn[k]) for k, v in frozen.predictor.state_dict().items())
    assert frozen.metrics[-1]["watermark_accuracy"] > 0.55
    assert frozen.config.to_dict()["predictor"] == "frozen"


def test_a_predictors_file_has_the_same_bytes_each_time_and_is_read_back(
    digits: Data, trained: Trained, key: WatermarkKey, tmp_path: Path
) -> None:
    """safetensors writes several entries of a header in any order; a predictor's header has one."""
    predictor = RotationPredictor(64, 3, pairs=True)
    path = tmp_path / "predictor.safetensors"
    written = set()
    for _ in range(16):
        save_predictor(predictor, key, path)
        written.add(path.read_bytes())
    assert len(written) == 1
    save_trained(replace(trained, predictor=predictor, key=key), tmp_path, describe_data(digits.name, digits.images))
    found = load_trained(tmp_path)
    assert found.key == key
    assert found.predictor is not None
    assert (found.predictor.dim, found.predictor.pairs) == (64, True)
    path.write_bytes(save(dict(predictor.state_dict()), metadata={"predictor": "[1]"}))
    with pytest.raises(OwnershipError, match="damaged"):
        load_trained(tmp_path)
