"""Training: the mark is learnt, runs repeat and resume, bad input is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import watermark_training.objectives as objectives
from ownership.errors import TrainingError
from ownership.watermark import WatermarkKey
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.device import pick_device
from watermark_training.train import Trained, train

CONFIG = TrainConfig(arch="tiny", epochs=3, batch_size=64, lr=2e-3, temperature=0.2, min_crop=0.3, flip=False)


def _same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_both_losses_fall_and_the_mark_is_learnt(trained: Trained, key: WatermarkKey) -> None:
    first, last = trained.metrics[0], trained.metrics[-1]
    assert last["contrastive_loss"] < first["contrastive_loss"] - 0.3
    assert last["mark_accuracy"] > 0.7 > first["mark_accuracy"]
    assert trained.key == key
    assert not trained.encoder.training


def test_plain_training_has_no_mark(digits: Data) -> None:
    result = train(digits.images[:64], replace(CONFIG, mark="none", epochs=1))
    assert result.predictor is None
    assert result.key is None
    assert "mark_loss" not in result.metrics[0]


def test_the_seed_decides_everything_but_the_secret_key(digits: Data, key: WatermarkKey) -> None:
    x = digits.images[:64]
    a, b = train(x, CONFIG, key=key), train(x, CONFIG, key=key)
    assert _same(a.encoder, b.encoder)
    assert not _same(a.encoder, train(x, replace(CONFIG, seed=1), key=key).encoder)
    fresh = [train(x, replace(CONFIG, epochs=1)).key for _ in range(2)]
    assert fresh[0] is not None
    assert fresh[0] != fresh[1]


def test_an_interrupted_run_ends_with_the_same_weights(
    digits: Data, key: WatermarkKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = digits.images[:128]
    whole = train(x, CONFIG, key=key)
    checkpoint = tmp_path / "checkpoint.pt"
    steps = 0

    def stop(_what: str, _done: int, _total: int) -> None:
        nonlocal steps
        steps += 1
        if steps == 5:  # in the middle of the third epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(x, CONFIG, key=key, checkpoint=checkpoint, progress=stop)
    resumed = train(x, CONFIG, checkpoint=checkpoint)  # the key comes back too
    assert resumed.key == key
    assert _same(whole.encoder, resumed.encoder)
    assert whole.metrics == resumed.metrics


def test_a_checkpoint_of_other_work_is_never_overwritten(digits: Data, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    train(digits.images[:64], CONFIG, checkpoint=checkpoint)
    before = checkpoint.read_bytes()
    other = WatermarkKey(cuts=(0.1, 1.0), margin=0.0, predictor_seed=0)
    for images, config, key in (
        (digits.images[:64], replace(CONFIG, seed=9), None),
        (digits.images[64:128], CONFIG, None),
        (digits.images[:64], CONFIG, other),
    ):
        with pytest.raises(TrainingError, match="unfinished run"):
            train(images, config, key=key, checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before


def test_a_damaged_checkpoint_is_said(digits: Data, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="cannot be read"):
        train(digits.images[:64], CONFIG, checkpoint=checkpoint)


def test_divergence_stops_with_advice(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "nt_xent_loss", lambda a, b, t: (a.sum() + b.sum()) * float("nan"))
    with pytest.raises(TrainingError, match="no longer finite"):
        train(digits.images[:64], CONFIG)


@pytest.mark.parametrize(
    "change", [{"arch": "nope"}, {"epochs": 0}, {"batch_size": 2}, {"lr": 0.0}, {"mark": "loud"}, {"min_crop": 2.0}]
)
def test_a_bad_configuration_is_said(change: dict[str, object]) -> None:
    with pytest.raises(TrainingError):
        replace(CONFIG, **change)  # type: ignore[arg-type]


def test_bad_images_are_said(digits: Data) -> None:
    with pytest.raises(TrainingError, match="too few"):
        train(digits.images[:3], CONFIG)
    with pytest.raises(TrainingError, match="uint8"):
        train(digits.images[:64].float(), CONFIG)
    with pytest.raises(TrainingError, match="not available"):
        pick_device("quantum")
