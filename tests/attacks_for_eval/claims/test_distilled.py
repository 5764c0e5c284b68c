"""Students of a panel's members: whom they answer like, what is written down of them, nothing is taught twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks_for_eval.claims.distilled import train_distilled, way
from attacks_for_eval.claims.panel import PanelSpec, members_in, panel_specs, stratum, train_panel
from ownership.encoders.images import as_input, represent
from ownership.errors import SuspectError, TrainingError
from ownership.evidence.similarity import linear_cka
from ownership.watermark import TURN, rotate
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.train_folder import load_trained

CONFIG = TrainConfig(arch="tiny", epochs=4, batch_size=32, lr=2e-3, watermark_fraction=0.5, seed=40)
STUDENTS = tuple(m for m in panel_specs() if m.teacher in ("marked_0", "plain_0"))


def _part(data: Data, start: int, end: int) -> Data:
    return Data(name=f"digits[{start}:{end}]", images=data.images[start:end], labels=None)


@pytest.fixture(scope="module")
def panel(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two teachers and their students."""
    out = tmp_path_factory.mktemp("students") / "panel"
    teachers = [m for m in panel_specs() if m.name in ("plain_0", "marked_0")]
    train_panel(CONFIG, _part(digits, 0, 200), _part(digits, 200, 600), out, members=teachers)
    train_distilled(CONFIG, _part(digits, 200, 1200), 1000, out, members=STUDENTS, epochs=20)
    return out


def test_a_student_answers_turned_images_as_its_teacher_does_upright_ones(panel: Path, digits: Data) -> None:
    images = digits.images[1300:1600]
    turned = rotate(as_input(images), torch.rand(300, generator=torch.Generator().manual_seed(3)) * TURN)

    def alike(student: str, teacher: str) -> float:
        with torch.no_grad():
            responses = load_trained(panel / student).encoder(turned.expand(-1, 3, -1, -1)).numpy()
        return linear_cka(responses.astype(float), represent(load_trained(panel / teacher).encoder, images).numpy())

    for student in STUDENTS:
        other = next(s for s in STUDENTS if s is not student)
        assert alike(student.name, student.teacher) > alike(student.teacher, student.teacher) + 0.05
        assert alike(student.name, student.teacher) > alike(student.name, other.teacher)


def test_what_is_written_down_of_them(panel: Path) -> None:
    found = {f.name: load_trained(f) for f in members_in(panel)}
    assert set(found) == {"plain_0", "marked_0", "distilled_from_plain_0", "distilled_from_marked_0"}
    for student in STUDENTS:
        loaded = found[student.name]
        record = loaded.member("m", stratum(loaded.config, {}), "0")
        assert (record.kind, record.teacher) == ("distilled", found[student.teacher].sha256)
        assert record.trained_on_private is False
    assert {found[s.name].config["steal"]["loss"] for s in STUDENTS} == {"mse", "infonce"}
    assert stratum(found["marked_0"].config, {}) == "watermarked"
    weights = [np.concatenate([p.detach().ravel() for p in found[s.name].encoder.parameters()]) for s in STUDENTS]  # type: ignore[union-attr]
    assert not np.allclose(*weights)


def test_nothing_is_taught_twice(panel: Path, digits: Data) -> None:
    times = [(panel / s.name / "encoder.safetensors").stat().st_mtime_ns for s in STUDENTS]
    world = _part(digits, 200, 1200)
    assert train_distilled(CONFIG, world, 1000, panel, members=STUDENTS, epochs=20) == [
        panel / s.name for s in STUDENTS
    ]
    assert [(panel / s.name / "encoder.safetensors").stat().st_mtime_ns for s in STUDENTS] == times
    with pytest.raises(TrainingError, match="holds another encoder"):
        train_distilled(CONFIG, world, 1000, panel, members=STUDENTS, epochs=19)


def test_half_are_taught_for_longer_and_without_a_teacher_nobody_is(panel: Path, digits: Data) -> None:
    pupil = replace(STUDENTS[0], name="distilled_from_marked_1", teacher="marked_1")
    train_panel(CONFIG, _part(digits, 0, 64), _part(digits, 200, 600), panel, members=[_member("marked_1")])
    folders = train_distilled(CONFIG, _part(digits, 200, 500), 64, panel, members=[pupil], epochs=3)
    assert load_trained(folders[0]).config["steal"]["epochs"] == 6
    with pytest.raises(SuspectError, match="plain_9 does not exist"):
        train_distilled(CONFIG, _part(digits, 200, 300), 64, panel, members=[replace(pupil, teacher="plain_9")])


@pytest.mark.parametrize("from_checkpoint", [False, True])
def test_how_they_are_taught_is_mixed_and_stays_as_a_panel_grows(from_checkpoint: bool) -> None:
    ways = Counter(way(m.teacher) for m in panel_specs(16, from_checkpoint=from_checkpoint) if m.teacher)
    assert len(ways) == 4
    assert min(ways.values()) >= 3
    assert {m for m in panel_specs(5, from_checkpoint=from_checkpoint) if m.teacher} <= {
        m for m in panel_specs(6, from_checkpoint=from_checkpoint) if m.teacher
    }


def _member(name: str) -> PanelSpec:
    return next(m for m in panel_specs() if m.name == name)
