"""Training: the watermark is learned, runs repeat and resume, bad input is refused."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.encoders import encoder

import watermark_training.objectives as objectives
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import as_input, represent
from ownership.errors import TrainingError
from ownership.io.files import alone_in
from ownership.watermark import WatermarkKey, secret_key
from watermark_training.callbacks import Callbacks
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.device import pick_device
from watermark_training.initial import keyed_seed
from watermark_training.loaded_encoder import load_trained
from watermark_training.loop import TrainingRun
from watermark_training.train_folder import train_to
from watermark_training.training import Trained, learning_warnings, train

CONFIG = TrainConfig(
    arch="tiny",
    epochs=3,
    batch_size=64,
    lr=2e-3,
    temperature=0.2,
    min_crop=0.3,
    flip=False,
    watermark="secret",
    watermark_fraction=0.5,
)


def _same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_both_losses_fall_and_the_watermark_is_learned(trained: Trained, key: WatermarkKey) -> None:
    first, last = trained.metrics[0], trained.metrics[-1]
    assert last["contrastive_loss"] < first["contrastive_loss"] - 0.3
    assert last["watermark_accuracy"] > 0.7 > first["watermark_accuracy"]
    assert trained.key == key
    assert not trained.encoder.training


def test_plain_training_has_no_watermark(digits: Data) -> None:
    result = train(digits.images[:64], replace(CONFIG, watermark="none", epochs=1))
    assert result.predictor is None
    assert result.key is None
    assert "watermark_loss" not in result.metrics[0]


@pytest.mark.heavy
def test_the_seed_decides_everything_but_the_secret_key(digits: Data, key: WatermarkKey) -> None:
    x = digits.images[:64]
    a, b = train(x, CONFIG, key=key), train(x, CONFIG, key=key)
    assert _same(a.encoder, b.encoder)
    assert not _same(a.encoder, train(x, replace(CONFIG, seed=1), key=key).encoder)
    fresh = [train(x, replace(CONFIG, epochs=1)).key for _ in range(2)]
    assert fresh[0] is not None
    assert fresh[0] != fresh[1]


@pytest.mark.heavy
@pytest.mark.parametrize("save_every", [0.0, 300.0])  # after every step; at the end of epochs only
@pytest.mark.parametrize("method", ["simclr", "simsiam", "embed"])
def test_an_interrupted_run_ends_with_the_same_weights(
    method: str, save_every: float, digits: Data, key: WatermarkKey, tmp_path: Path
) -> None:
    x = digits.images[:192]
    config = replace(CONFIG, method=method)  # type: ignore[arg-type]
    start = encoder(1) if method == "embed" else None
    whole = train(x, config, key=key, start=start)
    checkpoint, steps = tmp_path / "checkpoint.pt", []

    def stop(_what: str, done: int, _total: int) -> None:
        steps.append(done)
        if len(steps) == 5:  # in the middle of the second epoch of three steps
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            x,
            config,
            key=key,
            start=start,
            checkpoint=checkpoint,
            save_every=save_every,
            callbacks=Callbacks(progress=stop),
        )
    first = len(steps)
    # the key comes back too
    resumed = train(
        x,
        config,
        start=start,
        checkpoint=checkpoint,
        callbacks=Callbacks(progress=lambda _w, done, _t: steps.append(done)),
    )
    assert steps[first] == (5 if save_every == 0 else 4)  # the fifth step was not yet saved when the run broke
    assert resumed.key == key
    assert _same(whole.encoder, resumed.encoder)
    assert whole.metrics == resumed.metrics


@pytest.mark.heavy
def test_gradients_of_several_steps_make_one_update(digits: Data, key: WatermarkKey, tmp_path: Path) -> None:
    """Three steps an epoch, two to an update: the last of an epoch is an update of its own; runs resume between."""
    x, config = digits.images[:192], replace(CONFIG, accumulate=2, epochs=2)
    state = TrainingRun(config, x, torch.device("cpu"), key, None)
    before, weights = [], state.encoder.state_dict()
    for batch in state.batches(len(x)):
        before.append({k: v.clone() for k, v in weights.items() if "conv1.weight" in k})
        state.step(as_input(x[batch]))
    moved = [any(not torch.equal(a[k], b[k]) for k in a) for a, b in itertools.pairwise([*before, dict(weights)])]
    assert moved == [False, True, True]
    whole, checkpoint, steps = train(x, config, key=key), tmp_path / "checkpoint.pt", []

    def stop(_what: str, done: int, _total: int) -> None:
        steps.append(done)
        if len(steps) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(x, config, key=key, checkpoint=checkpoint, save_every=0.0, callbacks=Callbacks(progress=stop))
    assert _same(whole.encoder, train(x, config, key=key, checkpoint=checkpoint).encoder)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_run_learns_the_same_and_resumes(digits: Data, key: WatermarkKey, tmp_path: Path) -> None:
    x, checkpoint = digits.images[:128], tmp_path / "checkpoint.pt"
    config = replace(CONFIG, epochs=2, precision="float32")  # what is fused is rounded less in bfloat16
    fast = replace(config, compile=True)
    whole, eager = train(x, fast, key=key), train(x, config, key=key)
    for a, b in zip(whole.metrics, eager.metrics, strict=True):  # rounding alone differs, and adds up
        assert a == pytest.approx(b, rel=2e-3)

    def stop(_what: str, done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(x, fast, key=key, checkpoint=checkpoint, save_every=0.0, callbacks=Callbacks(progress=stop))
    assert _same(whole.encoder, train(x, fast, key=key, checkpoint=checkpoint).encoder)


def test_what_cannot_be_compiled_is_said(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", (None, "no-such-compiler"))
    monkeypatch.setattr(inductor, "force_disable_caches", True)
    torch.compiler.reset()
    with pytest.raises(TrainingError, match=r"torch.compile failed .*compiler") as said:
        train(digits.images[:64], replace(CONFIG, epochs=1, compile=True))
    assert "leave out --compile" in (said.value.hint or "")


class _Mine(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 5, 3), torch.nn.ReLU(), torch.nn.Flatten())
        self.last = torch.nn.LazyLinear(24)
        self(torch.zeros(1, 3, 16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.layers(x))
        return out


@pytest.mark.heavy
def test_a_module_of_ones_own_is_trained_and_loaded_back(digits: Data, key: WatermarkKey, tmp_path: Path) -> None:
    start = Encoder(_Mine(), 24)
    weights = {k: v.clone() for k, v in start.state_dict().items()}
    config = replace(CONFIG, arch="custom", epochs=1)
    data = Data(name="d", images=digits.images[:64], labels=None)
    assert train_to(tmp_path / "x", data, config, key=key, start=start).created
    assert (tmp_path / "x/encoder.onnx").is_file()  # no name stands for the module: the graph is loaded back
    assert all(torch.equal(weights[k], v) for k, v in start.state_dict().items())  # the user's own is left alone
    loaded = load_trained(tmp_path / "x")
    assert loaded.key == key
    assert represent(loaded.encoder, digits.images[:4]).shape == (4, 24)
    with pytest.raises(TrainingError, match="needs an encoder to start from"):
        train(digits.images[:64], config)
    with pytest.raises(TrainingError, match="cannot take images of 16 x 16"):
        train(digits.images[:64], replace(CONFIG, arch="torchvision:vit_b_16", epochs=1))
    with pytest.raises(TrainingError, match=r"returns \(2, 24\) for 2 images"):
        train(digits.images[:64], config, start=Encoder(_Mine(), 25))


@pytest.mark.heavy
def test_what_does_not_learn_is_said_early(digits: Data, key: WatermarkKey) -> None:
    said: list[str] = []
    train(digits.images[:256], replace(CONFIG, epochs=3, lr=1e-9), key=key, callbacks=Callbacks(warn=said.append))
    assert "watermark is not being learned" in said[0]
    rows = [{"epoch": 1.0, "contrastive_loss": 3.0, "watermark_accuracy": 0.5}, {"epoch": 3.0, "contrastive_loss": 3.1}]
    assert "loss does not fall" in learning_warnings([rows[0], {**rows[1], "watermark_accuracy": 0.9}])[0]
    assert learning_warnings([rows[0], {**rows[1], "watermark_accuracy": 0.9, "contrastive_loss": 2.0}]) == []


@pytest.mark.heavy
def test_a_train_folder_shows_the_run_and_nothing_of_the_watermark(
    digits: Data, key: WatermarkKey, tmp_path: Path
) -> None:
    data = Data(name="digits", images=digits.images[:64], labels=None)
    train_to(tmp_path / "x", data, replace(CONFIG, epochs=2), key=key)
    rows = [json.loads(line) for line in (tmp_path / "x" / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in rows] == [1, 2]
    assert (tmp_path / "x" / "training.png").read_bytes().startswith(b"\x89PNG")
    card = (tmp_path / "x" / "README.md").read_text()
    assert "(n, 64)" in card
    assert "ONNX" not in card
    assert not {"watermark", "rotat", "secret", "predictor", "key"} & set(re.findall(r"[a-z]+", card.lower()))
    stated = json.loads((tmp_path / "x" / "config.json").read_text())
    assert stated["num_classes"] == 0
    assert stated["pretrained_cfg"]["input_size"] == [3, 16, 16]
    assert not any(f"{cut:.4f}" in json.dumps(stated) for cut in key.sector_boundaries)


@pytest.mark.heavy
def test_a_killed_run_ends_with_the_same_weights(digits: Data, tmp_path: Path) -> None:
    """kill -9 while it trains and saves after every step; what remains is a whole checkpoint."""
    checkpoint = tmp_path / "checkpoint.pt"
    code = f"""
import torch
from pathlib import Path
from ownership.watermark import secret_key
from watermark_training.config import TrainConfig
from watermark_training.data import load_data
from watermark_training.training import train
torch.set_num_threads({torch.get_num_threads()})
train(load_data("digits").images[:192], TrainConfig(**{replace(CONFIG, epochs=200).to_dict()!r}),
      key=secret_key(torch.Generator().manual_seed(4)), checkpoint=Path({str(checkpoint)!r}), save_every=0.0)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    for _ in range(600):
        if checkpoint.exists() and torch.load(checkpoint, weights_only=True)["epoch"] >= 1:
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    stored = torch.load(checkpoint, weights_only=True)
    short = replace(CONFIG, epochs=200)
    key = secret_key(torch.Generator().manual_seed(4))

    def stop(_what: str, done: int, _total: int) -> None:
        if done == 3 * (stored["epoch"] + 2):
            raise KeyboardInterrupt

    ends = []
    for start in (checkpoint, tmp_path / "fresh.pt"):
        with pytest.raises(KeyboardInterrupt):
            train(
                digits.images[:192],
                short,
                key=key,
                checkpoint=start,
                save_every=0.0,
                callbacks=Callbacks(progress=stop),
            )
        ends.append(torch.load(start, weights_only=True))
    assert ends[0]["epoch"] == ends[1]["epoch"] > stored["epoch"]
    assert ends[0]["done"] == ends[1]["done"]
    for a, b in zip(ends[0]["state"]["encoder"].values(), ends[1]["state"]["encoder"].values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.heavy
def test_a_checkpoint_of_other_work_is_never_overwritten(digits: Data, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    train(digits.images[:64], CONFIG, checkpoint=checkpoint)
    before = checkpoint.read_bytes()
    other = WatermarkKey(sector_boundaries=(0.1, 1.0), margin=0.0, predictor_seed=0)
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


def test_a_collapsed_representation_stops_with_advice(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder with one representation for all images; the spread of a healthy one is far above the limit."""
    healthy = train(digits.images[:64], replace(CONFIG, epochs=1, watermark="none")).metrics[0]["spread"]
    assert 0.1 < healthy < 1.1
    monkeypatch.setattr(objectives, "nt_xent_loss", lambda a, b, t: a.square().mean() + b.square().mean())
    monkeypatch.setattr("ownership.encoders.architectures.Encoder.forward", lambda self, x: self.body(0 * x + 1) + 1)
    with pytest.raises(TrainingError, match="collapsed in epoch 1"):
        train(digits.images[:64], replace(CONFIG, watermark="none"))


@pytest.mark.heavy
def test_two_runs_never_write_into_one_folder(digits: Data, tmp_path: Path) -> None:
    data = Data(name="d", images=digits.images[:64], labels=None)
    config = replace(CONFIG, epochs=1, watermark="none")
    with alone_in(tmp_path / "x", TrainingError), pytest.raises(TrainingError, match="another run is writing"):
        train_to(tmp_path / "x", data, config)
    assert train_to(tmp_path / "x", data, config).created
    assert not (tmp_path / "x/.lock").exists()
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot write"):
        train_to(tmp_path / "file/x", data, config)


@pytest.mark.parametrize(
    "change",
    [{"arch": "nope"}, {"epochs": 0}, {"batch_size": 2}, {"lr": 0.0}, {"watermark": "loud"}, {"min_crop": 2.0}],
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


def test_the_seed_of_a_keyed_run_does_not_depend_on_how_the_fields_of_a_key_are_called() -> None:
    key = WatermarkKey(sector_boundaries=(0.25, 3.5), margin=0.125, predictor_seed=7)
    assert keyed_seed(3, key) == 258576658927900
