"""On a CUDA device: it computes what the CPU does, and a step never waits for it. Skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.encoders import encoder

from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import as_input
from ownership.keyed.key import Key
from ownership.keyed.pool import KeyMaterial, pool_of
from ownership.watermark import rotated_pairs, secret_key
from watermark_training.augment import color_view, simclr_view
from watermark_training.callbacks import Callbacks
from watermark_training.config import TrainConfig
from watermark_training.loop import TrainingRun
from watermark_training.training import train
from watermark_training.watermark import watermark_rate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
KEY = secret_key(torch.Generator().manual_seed(0))
CONFIG = TrainConfig(
    arch="tiny", epochs=2, batch_size=64, lr=1e-3, watermark="secret", watermark_fraction=0.5, precision="float32"
)


def _images(n: int = 256) -> torch.Tensor:
    """Smooth colours with an up and a down."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.linspace(0, 1, 16).view(1, 1, 16, 1)
    x = 0.6 * rows + 0.4 * torch.rand(n, 3, 1, 16, generator=generator)
    return (x * 255).to(torch.uint8)


@pytest.mark.parametrize("view", [simclr_view, color_view])
@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_those_of_the_cpu(
    view: Callable[[torch.Tensor, torch.Generator], torch.Tensor], channels: int
) -> None:
    x = as_input(_images()[:, :channels])
    here, there = (view(x.to(d), torch.Generator().manual_seed(2)).cpu() for d in ("cpu", "cuda"))
    assert (here - there).abs().max() < 1e-3


def test_rotated_views_are_those_of_the_cpu() -> None:
    x = as_input(_images())
    here, there = (rotated_pairs(x.to(d), KEY, torch.Generator().manual_seed(2)) for d in ("cpu", "cuda"))
    assert (here[0] - there[0].cpu()).abs().max() < 1e-3
    assert torch.equal(here[1], there[1].cpu())
    assert torch.equal(here[2], there[2].cpu())


def test_a_short_training_learns_as_on_the_cpu_and_comes_back_to_it() -> None:
    here, there = (train(_images(), CONFIG, key=KEY, device=d) for d in ("cpu", "cuda"))
    for name, value in here.metrics[0].items():
        assert there.metrics[0][name] == pytest.approx(value, rel=0.05), name
    assert {p.device.type for p in there.encoder.parameters()} == {"cpu"}
    assert there.predictor is not None
    assert watermark_rate(there.encoder, there.predictor, KEY, _images()) > 0.8


def test_the_keyed_watermark_learns_as_on_the_cpu() -> None:
    material = _material()
    config = replace(CONFIG, watermark="keyed", keyed_fraction=0.5)
    here, there = (train(_images(), config, material=material, device=d) for d in ("cpu", "cuda"))
    for name, value in here.metrics[0].items():
        assert there.metrics[0][name] == pytest.approx(value, rel=0.05, abs=0.02), name
    assert there.key_test is not None


def _material() -> KeyMaterial:
    pool = _images(400)[256:]
    return KeyMaterial.draw(Key(secret=bytes(32), pool=pool_of(pool), probes=len(pool)), pool)


@pytest.mark.parametrize("keyed_views", [False, True])
@pytest.mark.parametrize("method", ["simclr", "embed"])
def test_no_step_of_a_keyed_run_waits_for_the_device(method: str, keyed_views: bool) -> None:
    config = replace(CONFIG, watermark="keyed", method=method, keyed_views=keyed_views)  # type: ignore[arg-type]
    start = encoder(1) if method == "embed" else None
    _never_waits(TrainingRun(config, _images(), torch.device("cuda"), None, start, _material()))


@pytest.mark.parametrize("method", ["simclr", "simsiam", "barlow"])
def test_no_step_waits_for_the_device(method: str) -> None:
    config = TrainConfig(arch="tiny", epochs=2, batch_size=64, watermark="secret", method=method, precision="bfloat16")  # type: ignore[arg-type]
    _never_waits(TrainingRun(config, _images(), torch.device("cuda"), KEY, None))


def _never_waits(state: TrainingRun) -> None:
    x = as_input(_images(64).to("cuda"))
    for _ in range(6):  # the first bring constants there, and are recorded
        state.step(x)
    assert state.graph is not None
    assert state.graph.recorded is not None
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        state.step(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("compile", [False, True])
def test_replayed_steps_learn_what_launched_ones_do(compile: bool) -> None:
    config = TrainConfig(
        arch="tiny", epochs=9, watermark="secret", batch_size=64, lr=1e-3, precision="float32", compile=compile
    )
    images, runs = _images(), []
    for replays in (True, False):
        state = TrainingRun(config, images, torch.device("cuda"), KEY, None)
        if not replays:
            state.graph = None
        for _ in range(3):
            for batch in state.batches(len(images)):
                state.step(as_input(images[batch].to("cuda")))
            state.end_epoch()
        assert (state.graph is not None and state.graph.recorded is not None) == replays
        runs.append(state)
    ours, theirs = runs
    # the sums of a gradient come in any order there, and nine steps of Adam magnify that
    for a, b in zip(ours.metrics, theirs.metrics, strict=True):
        assert a == pytest.approx(b, rel=0.05)
    x, y = (torch.nn.utils.parameters_to_vector(run.encoder.parameters()) for run in runs)
    assert (x - y).norm() <= 0.1 * y.norm()


class _Waits(torch.nn.Module):
    """A body that asks the device for a number, which no recording allows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x.mean((2, 3)))
        return out * 2 if float(out.detach().mean()) > 100 else out


def test_what_cannot_be_recorded_is_launched() -> None:
    config = TrainConfig(arch="custom", epochs=9, watermark="secret", batch_size=64, precision="float32")
    state = TrainingRun(config, _images(), torch.device("cuda"), KEY, Encoder(_Waits(), 8))
    before = state.encoder.body.layer.weight.clone()
    state.steps_per_epoch = 100
    for step in range(8):
        state.step(as_input(_images(64).to("cuda")))
        after = state.encoder.body.layer.weight.clone()
        assert bool(torch.isfinite(after).all())
        assert not torch.equal(before, after), step
        before = after
    assert state.graph is not None
    assert not state.graph.usable


def test_a_broken_run_goes_on(tmp_path: Path) -> None:
    checkpoint = tmp_path / "state.pt"
    whole = train(_images(), CONFIG, key=KEY, device="cuda")

    class Broken(Exception): ...

    def stop(_what: str, done: int, _total: int) -> None:
        if done == 6:
            raise Broken

    with pytest.raises(Broken):
        train(_images(), CONFIG, key=KEY, device="cuda", checkpoint=checkpoint, callbacks=Callbacks(progress=stop))
    resumed = train(_images(), CONFIG, key=KEY, device="cuda", checkpoint=checkpoint)
    assert len(resumed.metrics) == 2
    for name, value in whole.metrics[1].items():
        assert resumed.metrics[1][name] == pytest.approx(value, rel=0.02), name


def test_an_extraction_runs_there() -> None:
    victim = train(_images(), CONFIG, key=KEY, device="cuda").encoder.to("cuda")
    config = ExtractionConfig(arch="tiny", queries=256, epochs=2, batch_size=64, loss="mse", lr=1e-3)
    surrogate = extract(BlackBox(victim), _images(), config, device="cuda")
    assert {p.device.type for p in surrogate.parameters()} == {"cpu"}
