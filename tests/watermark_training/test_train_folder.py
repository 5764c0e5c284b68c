"""Train folders: what is written and loaded, watermark material that is missing, unfinished folders."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from attacks_for_eval.claims.build import claim_with_references
from ownership.errors import SuspectError, TrainingError
from ownership.plan import Plan
from ownership.watermark import WatermarkKey
from watermark_training.callbacks import Callbacks
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.describe import describe
from watermark_training.loaded_encoder import load_trained
from watermark_training.train_folder import describe_data, save_trained, train_to
from watermark_training.training import Trained

CONFIG = TrainConfig(arch="tiny", epochs=2, batch_size=32, watermark="none")


@pytest.fixture
def folder(trained: Trained, digits: Data, tmp_path: Path) -> Path:
    """A watermarked encoder's train folder, with its ONNX form."""
    path = tmp_path / "victim"
    save_trained(trained, path, describe_data("digits", digits.images[:256]), onnx=True)
    return path


@pytest.mark.heavy
def test_onnx_is_written_only_where_asked_for_and_later_too(digits: Data, tmp_path: Path) -> None:
    data = Data(name="d", images=digits.images[:64], labels=None)
    assert train_to(tmp_path / "x", data, CONFIG).created
    assert not (tmp_path / "x/encoder.onnx").exists()
    again = train_to(tmp_path / "x", data, CONFIG, onnx=True)
    assert (again.created, again.load().sha256) == (False, load_trained(tmp_path / "x").sha256)
    assert (tmp_path / "x/encoder.onnx").is_file()


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.onnx"])
def test_an_encoders_file_is_loaded_with_what_its_folder_knows(name: str, folder: Path, key: WatermarkKey) -> None:
    whole, file = load_trained(folder), load_trained(folder / name)
    assert (file.key, file.config) == (key, whole.config)
    assert file.predictor is not None
    assert file.projection_head is not None
    assert (file.sha256 == whole.sha256) == (name == "encoder.safetensors")
    shutil.copyfile(folder / name, folder.parent / name)
    alone = load_trained(folder.parent / name)
    assert (alone.sha256, alone.config, alone.key) == (file.sha256, {}, None)


@pytest.mark.parametrize("path", [".", "encoder.safetensors", "encoder.onnx"])
def test_a_missing_predictor_is_an_error_of_the_claim(path: str, folder: Path, digits: Data) -> None:
    (folder / "predictor.safetensors").unlink()
    victim = load_trained(folder / path)
    assert "predictor.safetensors is missing" in describe(folder / path)[-1]
    private, public = (Data(name="d", images=digits.images[a:b], labels=None) for a, b in ((0, 256), (256, 600)))
    with pytest.raises(SuspectError, match=r"predictor\.safetensors, which holds the key, is missing") as said:
        claim_with_references(victim, private, public, [], Plan())
    assert "restore predictor.safetensors" in (said.value.hint or "")


def test_an_unfinished_folder_is_called_so_with_the_command_that_continues_it(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/turnmark", "train", "my photos/", "--out", "x"])
    data = Data(name="d", images=digits.images[:64], labels=None)

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:  # one epoch is saved
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_to(tmp_path / "x", data, CONFIG, callbacks=Callbacks(epoch=stop))
    with pytest.raises(SuspectError, match="x is unfinished") as said:
        load_trained(tmp_path / "x")
    assert said.value.hint == "continue it: turnmark train 'my photos/' --out x"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/turnmark", "train", "my photos/", "--out", "x", "--seed", "9"])
    with pytest.raises(TrainingError, match="another configuration"):
        train_to(tmp_path / "x", data, replace(CONFIG, seed=9))
    with pytest.raises(SuspectError) as said:
        load_trained(tmp_path / "x")
    assert said.value.hint == "continue it: turnmark train 'my photos/' --out x"
    train_to(tmp_path / "x", data, CONFIG)
    assert load_trained(tmp_path / "x").config["train"]["epochs"] == 2
    assert not (tmp_path / "x/unfinished.json").exists()


def test_work_that_kept_nothing_is_not_unfinished(digits: Data, tmp_path: Path) -> None:
    def stop(_what: str, _done: int, _total: int) -> None:
        raise KeyboardInterrupt

    data = Data(name="d", images=digits.images[:64], labels=None)
    with pytest.raises(KeyboardInterrupt):
        train_to(tmp_path / "x", data, replace(CONFIG, epochs=1), callbacks=Callbacks(progress=stop))
    assert not (tmp_path / "x/unfinished.json").exists()
