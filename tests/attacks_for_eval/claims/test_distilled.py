"""Distilled controls: which encoder they resemble, what is recorded, that finished ones are kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks_for_eval.claims.distilled import distillation_schedule, train_distilled
from attacks_for_eval.claims.panel import train_folders_in, train_panel
from attacks_for_eval.claims.panel_spec import PanelSpec, PanelTraining, panel_specs, stratum_of
from ownership.encoders.images import as_input, represent
from ownership.errors import SuspectError, TrainingError
from ownership.evidence.similarity import linear_cka
from ownership.watermark import TURN, rotate
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.loaded_encoder import load_trained

pytestmark = pytest.mark.heavy

CONFIG = TrainConfig(arch="tiny", epochs=4, batch_size=32, lr=2e-3, watermark="secret", watermark_fraction=0.5, seed=40)
DISTILLED = tuple(m for m in panel_specs() if m.distilled_from in ("watermarked_0", "plain_0"))


def _part(data: Data, start: int, end: int) -> Data:
    return Data(name=f"digits[{start}:{end}]", images=data.images[start:end], labels=None)


def _distillation(digits: Data, epochs: int) -> PanelTraining:
    """1,000 queried images: as many as the private ones."""
    return PanelTraining(config=CONFIG, private=_part(digits, 0, 1000), others=_part(digits, 200, 1200), epochs=epochs)


@pytest.fixture(scope="module")
def panel(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two teachers and the controls distilled from them."""
    out = tmp_path_factory.mktemp("distilled") / "panel"
    teachers = [m for m in panel_specs() if m.name in ("plain_0", "watermarked_0")]
    training = PanelTraining(config=CONFIG, private=_part(digits, 0, 200), others=_part(digits, 200, 600))
    train_panel(out, teachers, training)
    train_panel(out, DISTILLED, _distillation(digits, 20))
    return out


def test_distilled_represents_rotated_images_as_its_teacher_does_unrotated_ones(panel: Path, digits: Data) -> None:
    images = digits.images[1300:1600]
    rotated = rotate(as_input(images), torch.rand(300, generator=torch.Generator().manual_seed(3)) * TURN)

    def similarity(name: str, teacher: str) -> float:
        with torch.no_grad():
            responses = load_trained(panel / name).encoder(rotated.expand(-1, 3, -1, -1)).numpy()
        return linear_cka(responses.astype(float), represent(load_trained(panel / teacher).encoder, images).numpy())

    for spec in DISTILLED:
        teacher = spec.distilled_from
        other = next(s for s in DISTILLED if s is not spec)
        assert similarity(spec.name, teacher) > similarity(teacher, teacher) + 0.05
        assert similarity(spec.name, teacher) > similarity(spec.name, other.distilled_from)


def test_what_is_recorded(panel: Path) -> None:
    found = {f.name: load_trained(f) for f in train_folders_in(panel)}
    assert set(found) == {"plain_0", "watermarked_0", "distilled_from_plain_0", "distilled_from_watermarked_0"}
    for spec in DISTILLED:
        loaded = found[spec.name]
        record = loaded.member("m", stratum_of(loaded.config, {}), "0")
        assert (record.kind, record.teacher) == ("distilled", found[spec.distilled_from].sha256)
        assert record.trained_on_private is False
    assert {found[s.name].config["extraction"]["loss"] for s in DISTILLED} == {"mse", "infonce"}
    assert stratum_of(found["watermarked_0"].config, {}) == "watermarked"
    weights = [np.concatenate([p.detach().ravel() for p in found[s.name].encoder.parameters()]) for s in DISTILLED]  # type: ignore[union-attr]
    assert not np.allclose(*weights)


def test_finished_controls_are_kept(panel: Path, digits: Data) -> None:
    times = [(panel / s.name / "encoder.safetensors").stat().st_mtime_ns for s in DISTILLED]
    assert train_panel(panel, DISTILLED, _distillation(digits, 20)) == [panel / s.name for s in DISTILLED]
    assert [(panel / s.name / "encoder.safetensors").stat().st_mtime_ns for s in DISTILLED] == times
    with pytest.raises(TrainingError, match="holds another encoder"):
        train_panel(panel, DISTILLED, _distillation(digits, 19))


def test_half_train_longer_and_a_teacher_is_required(panel: Path, digits: Data) -> None:
    spec = replace(DISTILLED[0], name="distilled_from_watermarked_1", distilled_from="watermarked_1")
    training = PanelTraining(config=CONFIG, private=_part(digits, 0, 64), others=_part(digits, 200, 600))
    train_panel(panel, [_member("watermarked_1")], training)
    short = PanelTraining(config=CONFIG, private=_part(digits, 0, 64), others=_part(digits, 200, 500), epochs=3)
    folder = train_distilled(panel, spec, short)
    assert load_trained(folder).config["extraction"]["epochs"] == 6
    with pytest.raises(SuspectError, match="plain_9 does not exist"):
        train_distilled(panel, replace(spec, distilled_from="plain_9"), short)


@pytest.mark.parametrize("from_checkpoint", [False, True])
def test_schedules_are_mixed_and_stay_as_a_panel_grows(from_checkpoint: bool) -> None:
    specs = panel_specs(16, from_checkpoint=from_checkpoint)
    schedules = Counter(distillation_schedule(m.distilled_from) for m in specs if m.distilled_from)
    assert len(schedules) == 4
    assert min(schedules.values()) >= 3
    assert {m for m in panel_specs(5, from_checkpoint=from_checkpoint) if m.distilled_from} <= {
        m for m in panel_specs(6, from_checkpoint=from_checkpoint) if m.distilled_from
    }


def _member(name: str) -> PanelSpec:
    return next(m for m in panel_specs() if m.name == name)
