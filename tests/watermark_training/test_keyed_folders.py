"""The keyed watermark in train folders: embedded, trained, and stored by a loop of one's own."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.encoders import encoder, same
from support.keys import key_of
from torch import nn

from attacks_for_eval.claims.panel_spec import victim_training
from ownership.encoders.architectures import Encoder, make_encoder
from ownership.encoders.images import represent
from ownership.errors import OwnershipError, SuspectError, TrainingError
from ownership.keyed.pool import KeyMaterial
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.describe import describe
from watermark_training.embed import embed_to
from watermark_training.key_material import new_key_material, refuse_pool_images
from watermark_training.keyed_watermark import KeyedWatermark
from watermark_training.losses import feature_preservation_loss
from watermark_training.own_loop import save_train_folder
from watermark_training.train_folder import load_trained, train_to
from watermark_training.training import train
from watermark_training.watermark import RotationWatermark

CONFIG = TrainConfig(arch="tiny", epochs=2, batch_size=64, lr=2e-3, temperature=0.2, min_crop=0.3, flip=False)


def test_images_of_the_keys_pool_are_not_trained_on(
    images: torch.Tensor, material: KeyMaterial, tmp_path: Path
) -> None:
    """Every document says that the encoder is not trained on its probes; a few duplicates are allowed."""
    inside = material.probes[:64]
    for shown in (inside, inside.expand(-1, 3, -1, -1)):  # gray, in one channel or three
        with pytest.raises(TrainingError, match="of the training images are in the key's pool"):
            train_to(tmp_path / "x", Data(name="d", images=shown, labels=None), CONFIG, material=material)
    assert not (tmp_path / "x").exists()
    few = torch.cat([images[:600], material.probes[:3]])
    refuse_pool_images(few, material)


@pytest.mark.heavy
def test_embedding_teaches_it_and_preserves_the_representations(
    images: torch.Tensor, material: KeyMaterial, tmp_path: Path
) -> None:
    base = train(images[:600], replace(CONFIG, epochs=8, watermark="none"))
    train_to(tmp_path / "base", Data(name="d", images=images[:600], labels=None), replace(CONFIG, watermark="none"))
    data = Data(name="d", images=images[:600], labels=None)
    known = replace(load_trained(tmp_path / "base"), encoder=base.encoder)
    done = embed_to(tmp_path / "x", known, data, {"lr": 1e-3}, material=material)
    assert done.key_test is not None
    assert done.key_test.pvalue <= 1e-4
    loaded = done.load()
    assert (loaded.require_material().key, loaded.watermark) == (material.key, "keyed")
    assert loaded.config["base_checkpoint"] == known.sha256
    assert loaded.projection_head is not None
    held = images[700:1000]
    moved = feature_preservation_loss(represent(loaded.encoder, held), represent(base.encoder, held))
    assert float(moved) < 0.1
    for (name, a), b in zip(
        loaded.encoder.state_dict().items(),  # type: ignore[attr-defined]
        base.encoder.state_dict().values(),
        strict=True,
    ):
        assert "running" not in name or torch.equal(a, b)


class _Mine(nn.Module):
    """A module of one's own, which brings its images to -1 to 1 itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 12, 5, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten())
        self.last = nn.Linear(192, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.layers(2 * x - 1))
        return out


@pytest.mark.heavy
def test_embedding_takes_a_module_of_ones_own(images: torch.Tensor, material: KeyMaterial, tmp_path: Path) -> None:
    torch.manual_seed(0)
    mine, data = _Mine().eval(), Data(name="d", images=images[:128], labels=None)
    before = {k: v.clone() for k, v in mine.state_dict().items()}
    loaded = embed_to(tmp_path / "x", mine, data, {"epochs": 1, "lr": 1e-9}, material=material).load()
    assert represent(loaded.encoder, images[:9]).numpy() == pytest.approx(represent(mine, images[:9]).numpy(), abs=1e-4)
    assert loaded.require_material().key == material.key
    assert all(torch.equal(before[k], v) for k, v in mine.state_dict().items())
    with pytest.raises(TrainingError, match=r"returns \(2, 3, 16, 16\) for 2 images"):
        embed_to(tmp_path / "y", nn.Identity(), data, {}, material=material)
    with pytest.raises(TrainingError, match="cannot take images"):
        embed_to(tmp_path / "y", nn.Linear(3, 4), data, {}, material=material)


@pytest.mark.heavy
def test_a_torchvision_model_is_retrofitted(images: torch.Tensor, tmp_path: Path) -> None:
    """A published state dict, classifier included, named by its architecture."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    torch.save(resnet18().state_dict(), tmp_path / "published.pt")
    large = torch.nn.functional.interpolate(images[:160].float(), size=32).to(torch.uint8)
    known = load_trained(tmp_path / "published.pt", "torchvision:resnet18")
    data = Data(name="d", images=large[:48], labels=None)
    done = embed_to(tmp_path / "x", known, data, {"epochs": 1, "batch_size": 16}, material=key_of(large[48:]))
    loaded = done.load()
    assert (loaded.architecture, loaded.watermark) == ("torchvision:resnet18", "keyed")
    assert loaded.config["base_checkpoint"] == known.sha256


@pytest.fixture(scope="module")
def folder(digits: Data, material: KeyMaterial, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The train folder of an encoder with a keyed watermark."""
    path = tmp_path_factory.mktemp("keyed") / "victim"
    data = Data(name="digits", images=digits.images[:128], labels=None)
    train_to(path, data, replace(CONFIG, epochs=1), material=material, onnx=True)
    return path


@pytest.mark.heavy
def test_a_train_folder_holds_the_key_for_its_owner_alone(folder: Path, material: KeyMaterial) -> None:
    for name in ("key.json", "probes.safetensors"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert not (folder / "predictor.safetensors").exists()
    for path in (folder, folder / "encoder.safetensors", folder / "encoder.onnx"):
        loaded = load_trained(path)
        found = loaded.require_material()
        assert (found.key, found.digests) == (material.key, material.digests)
        assert torch.equal(found.probes, material.probes)
        loaded.require_watermark()
    public = [(folder / n).read_text() for n in ("config.json", "README.md", "metrics.jsonl")]
    assert not [text for text in public if material.key.secret.hex() in text or material.key.pool.sha256 in text]
    assert not {"watermark", "keyed", "secret"} & set((folder / "README.md").read_text().lower().split())
    assert set(json.loads((folder / "metrics.jsonl").read_text())) >= {"keyed_loss", "keyed_r_squared"}
    assert f"unanchored key with commitment {material.key.commitment_sha256}" in describe(folder)[-2]


@pytest.mark.heavy
def test_a_lost_or_damaged_key_is_an_error(folder: Path, tmp_path: Path) -> None:
    for name in ("key.json", "probes.safetensors"):
        for content in (None, b"", b"damaged"):
            broken = shutil.copytree(folder, tmp_path / f"{name} {content!r}")
            (broken / name).unlink() if content is None else (broken / name).write_bytes(content)
            with pytest.raises(OwnershipError):
                load_trained(broken)
    published = shutil.copytree(folder, tmp_path / "published")
    for name in ("key.json", "probes.safetensors"):
        (published / name).unlink()
    loaded = load_trained(published)
    assert loaded.watermark == "keyed"
    assert "key.json is missing" in describe(published)[-2]
    with pytest.raises(SuspectError, match=r"its key \(key.json, probes.safetensors\) is missing"):
        loaded.require_watermark()


@pytest.mark.heavy
def test_the_end_of_a_loop_of_ones_own_is_a_train_folder(
    images: torch.Tensor, material: KeyMaterial, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    mine, x = _Mine(), images[:200]
    keyed, rotation = KeyedWatermark(24, material), RotationWatermark(24)
    done = save_train_folder(tmp_path / "keyed", mine, x, keyed, name="my digits")
    assert mine.training  # left alone
    assert done.key_test is not None
    loaded = load_trained(tmp_path / "keyed")
    assert (loaded.watermark, loaded.architecture) == ("keyed", None)
    assert loaded.require_material().key == material.key
    assert loaded.config["data"]["name"] == "my digits"
    expected = represent(mine, x[:9])
    assert represent(loaded.encoder, x[:9]).numpy() == pytest.approx(expected.numpy(), abs=1e-4)
    save_train_folder(tmp_path / "rotation", mine, x, rotation)
    found = load_trained(tmp_path / "rotation")
    assert (found.watermark, found.key) == ("secret", rotation.key)
    assert found.predictor is not None
    assert found.predictor.pairs
    save_train_folder(tmp_path / "none", mine, x, None)
    assert load_trained(tmp_path / "none").watermark == "none"
    assert "loop" in describe(tmp_path / "none")[1]
    with pytest.raises(TrainingError, match="a loop of its owner's own"):
        victim_training(loaded.config)
    with pytest.raises(TrainingError, match="exists already"):
        save_train_folder(tmp_path / "none", mine, x, None)


@pytest.mark.heavy
def test_weights_of_a_known_architecture_are_stored_as_such(
    images: torch.Tensor, material: KeyMaterial, tmp_path: Path
) -> None:
    model = copy.deepcopy(encoder(1))
    save_train_folder(tmp_path / "tiny", model, images[:64], KeyedWatermark(64, material), arch="tiny")
    loaded = load_trained(tmp_path / "tiny")
    assert loaded.architecture == "tiny"
    assert isinstance(loaded.encoder, Encoder)
    assert same(loaded.encoder, model)
    assert not (tmp_path / "tiny/encoder.onnx").exists()
    with pytest.raises(TrainingError, match="is not a small"):
        save_train_folder(tmp_path / "x", model, images[:64], None, arch="small")
    raw = make_encoder("torchvision:mobilenet_v3_small").body  # without the encoder's own normalization
    with pytest.raises(TrainingError, match="other representations"):
        save_train_folder(tmp_path / "x", raw, images[:64], None, arch="torchvision:mobilenet_v3_small")
    assert not (tmp_path / "x").exists()


def test_keys_made_for_a_loop_are_new(images: torch.Tensor) -> None:
    first, second = (new_key_material(images[:100]) for _ in range(2))
    assert first.key.secret != second.key.secret
    assert first.key.pool == second.key.pool
    first.check()
