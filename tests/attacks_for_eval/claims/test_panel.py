"""A panel for a claim: kinds, data, keys of its members; nothing is trained twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attacks_for_eval.claims.panel import like_the_victim, members_in, panel_specs, part_of, train_panel
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import images_sha256
from ownership.errors import TrainingError
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.train_folder import Loaded, load_trained, train_to

CONFIG = TrainConfig(arch="tiny", epochs=1, batch_size=32, watermark_fraction=0.5, seed=40)
FEW = tuple(
    panel_specs()[i] for i in (0, 5, 6, 14)
)  # plain and marked on private images, public task, turned on others


def _part(data: Data, start: int, end: int) -> Data:
    return Data(name=f"digits[{start}:{end}]", images=data.images[start:end], labels=None)


@pytest.fixture
def victim(digits: Data, tmp_path: Path) -> Path:
    train_to(tmp_path / "victim", _part(digits, 0, 64), CONFIG)
    return tmp_path / "victim"


def test_members_are_like_the_victim_and_of_their_kind(victim: Path, digits: Data, tmp_path: Path) -> None:
    private, world = _part(digits, 0, 64), _part(digits, 64, 200)
    training = like_the_victim(load_trained(victim).config)
    assert training == CONFIG
    seen: list[tuple[str, int]] = []
    folders = train_panel(
        training, private, world, tmp_path / "panel", members=FEW, progress=lambda w, d, _t: seen.append((w, d))
    )
    loaded = [load_trained(f) for f in folders]
    assert [f.name for f in folders] == ["plain_0", "marked_0", "marked_1", "invariant_4"]
    assert members_in(tmp_path / "panel") == sorted(folders)
    stored = [m.config["train"] for m in loaded]
    assert [(t["watermark"], t["rotate"]) for t in stored] == [
        ("none", False),
        ("secret", False),
        ("paper", False),
        ("none", True),
    ]
    assert {t["arch"] for t in stored} == {"tiny"}
    assert len({t["seed"] for t in stored} | {CONFIG.seed}) == 5
    own = images_sha256(private.images)
    assert [m.config["data"]["sha256"] == own for m in loaded] == [True, True, True, False]
    assert loaded[1].key != load_trained(victim).key
    assert [d for _, d in seen] == sorted(d for _, d in seen)
    # the same again: nothing is trained
    times = [(f / "encoder.safetensors").stat().st_mtime_ns for f in folders]
    train_panel(training, private, world, tmp_path / "panel", members=FEW)
    assert [(f / "encoder.safetensors").stat().st_mtime_ns for f in folders] == times


@pytest.mark.parametrize("n", [5, 16])
def test_a_panel_has_as_many_of_each_kind_some_on_the_victims_images(n: int) -> None:
    panel = panel_specs(n)
    for kind in ("plain", "watermarked", "rotation_invariant"):
        members = [m for m in panel if m.kind == kind]
        assert len(members) == n
        assert 0 < sum(m.trains_on_private for m in members) < n
    assert {m.watermark for m in panel if m.kind == "watermarked"} == {"secret", "paper"}
    assert {m.kind for m in panel_specs(n, rotation_invariant=False)} == {"plain", "watermarked"}
    from_checkpoint = [
        m for m in panel_specs(n, from_checkpoint=True) if m.kind == "sibling"
    ]  # and what they come from
    assert len(from_checkpoint) == n - 1
    assert {(m.watermark, m.trains_on_private) for m in from_checkpoint} >= {
        (k, p) for k in ("none", "secret") for p in (True, False)
    }
    assert {m for m in panel_specs(n, from_checkpoint=True) if m.kind not in ("sibling", "distilled")} <= set(panel)
    for kinds, grown in ((("plain", "watermarked"), False), (("plain", "watermarked", "sibling"), True)):
        members = panel_specs(n, from_checkpoint=grown)
        taught = [m for m in members if m.kind == "distilled"]
        teachers = [next(m for m in members if m.name == s.teacher) for s in taught]
        assert len(taught) == n == len({t.name for t in teachers})
        assert {t.kind for t in teachers} == set(kinds)


def test_a_panel_grows_around_what_is_there(victim: Path, digits: Data, tmp_path: Path) -> None:
    private, world = _part(digits, 0, 64), _part(digits, 64, 200)
    small, large = (tuple(m for m in panel_specs(n) if m.kind == "plain")[-2:] for n in (5, 6))
    assert [m.name for m in large] == ["plain_4", "plain_5"]
    first = train_panel(CONFIG, private, world, tmp_path / "panel", members=small)[1]
    kept = (first / "encoder.safetensors").stat().st_mtime_ns
    both = train_panel(CONFIG, private, world, tmp_path / "panel", members=large)
    assert both[0] == first
    assert (first / "encoder.safetensors").stat().st_mtime_ns == kept
    assert len({load_trained(f).sha256 for f in both}) == 2


def test_kin_go_on_from_where_the_victim_did_in_its_passes(victim: Path, digits: Data, tmp_path: Path) -> None:
    private, world = _part(digits, 0, 64), _part(digits, 64, 200)
    before = load_trained(victim)  # here for the checkpoint
    some = [m for m in panel_specs(from_checkpoint=True) if m.name in ("plain_0", "sibling_0", "sibling_2")]
    still = replace(CONFIG, lr=1e-9)
    folders = train_panel(still, private, world, tmp_path / "panel", members=some, epochs=2, base_checkpoint=before)
    plain, first, second = map(load_trained, folders)
    assert [x.config["train"]["epochs"] for x in (plain, first, second)] == [2, 1, 1]
    assert [x.config.get("base_checkpoint") for x in (plain, first, second)] == [None, before.sha256, before.sha256]
    assert second.key is not None

    def weights(x: Loaded) -> dict[str, torch.Tensor]:
        assert isinstance(x.encoder, Encoder)
        return dict(x.encoder.named_parameters())

    for from_checkpoint in (first, second):
        assert all(torch.allclose(weights(from_checkpoint)[name], x, atol=1e-5) for name, x in weights(before).items())
    assert not all(torch.allclose(weights(plain)[name], x, atol=1e-5) for name, x in weights(before).items())
    with pytest.raises(TrainingError, match="what it went on from"):
        train_panel(CONFIG, private, world, tmp_path / "other", members=some)


def test_a_part_is_drawn_by_its_seed(digits: Data) -> None:
    first, again, other = (part_of(digits, 50, s).images for s in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)


def test_what_is_refused(victim: Path, digits: Data, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="fewer than the victim's 64"):
        train_panel(CONFIG, _part(digits, 0, 64), _part(digits, 64, 100), tmp_path / "p", members=FEW)
    with pytest.raises(TrainingError, match="nothing is known"):
        like_the_victim({})
    for wrong in (replace(CONFIG, method="embed"), replace(CONFIG, arch="custom")):
        with pytest.raises(TrainingError, match="cannot be trained as this victim was"):
            like_the_victim({"train": wrong.to_dict()})


def test_a_train_folder_is_one_member_and_a_mixed_folder_is_none_of_ours(victim: Path, tmp_path: Path) -> None:
    assert members_in(victim) == [victim]
    (tmp_path / "notes.txt").write_text("x")
    assert members_in(tmp_path) == [tmp_path]
    assert members_in(tmp_path / "weights.onnx") == [tmp_path / "weights.onnx"]
