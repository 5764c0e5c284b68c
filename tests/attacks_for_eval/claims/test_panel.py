"""A reference panel: strata, images, keys of its members; finished members are kept."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attacks_for_eval.claims.panel import train_folders_in, train_panel
from attacks_for_eval.claims.panel_spec import PanelTraining, draw_images, panel_specs, victim_training
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import images_sha256
from ownership.errors import SuspectError, TrainingError
from watermark_training.callbacks import Callbacks
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.loaded_encoder import LoadedEncoder, load_trained
from watermark_training.train_folder import train_to

pytestmark = pytest.mark.heavy

CONFIG = TrainConfig(arch="tiny", epochs=1, batch_size=32, watermark="secret", watermark_fraction=0.5, seed=40)
FEW = tuple(
    panel_specs()[i] for i in (0, 5, 6, 14)
)  # plain and watermarked on private images, public task, rotation-invariant on others


def _part(data: Data, start: int, end: int) -> Data:
    return Data(name=f"digits[{start}:{end}]", images=data.images[start:end], labels=None)


@pytest.fixture(scope="module")
def victim(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("panel") / "victim"
    train_to(folder, _part(digits, 0, 64), CONFIG)
    return folder


def test_members_are_like_the_victim_and_of_their_kind(victim: Path, digits: Data, tmp_path: Path) -> None:
    private, others = _part(digits, 0, 64), _part(digits, 64, 200)
    training = victim_training(load_trained(victim).config)
    assert training == CONFIG
    seen: list[tuple[str, int, int]] = []
    how = PanelTraining(config=training, private=private, others=others)
    shown = Callbacks(progress=lambda *report: seen.append(report))
    folders = train_panel(tmp_path / "panel", FEW, how, callbacks=shown)
    loaded = [load_trained(f) for f in folders]
    assert [f.name for f in folders] == ["plain_0", "watermarked_0", "watermarked_1", "rotation_invariant_4"]
    assert train_folders_in(tmp_path / "panel") == sorted(folders)
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
    assert seen[0] == ("member 1 of 4, plain_0", 0, 1)
    assert ("member 2 of 4, watermarked_0: training", 2, 2) in seen
    # the same again: nothing is trained
    times = [(f / "encoder.safetensors").stat().st_mtime_ns for f in folders]
    train_panel(tmp_path / "panel", FEW, how)
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
        distilled = [m for m in members if m.kind == "distilled"]
        teachers = [next(m for m in members if m.name == s.distilled_from) for s in distilled]
        assert len(distilled) == n == len({t.name for t in teachers})
        assert {t.kind for t in teachers} == set(kinds)


def test_a_growing_panel_keeps_its_members(victim: Path, digits: Data, tmp_path: Path) -> None:
    private, others = _part(digits, 0, 64), _part(digits, 64, 200)
    small, large = (tuple(m for m in panel_specs(n) if m.kind == "plain")[-2:] for n in (5, 6))
    assert [m.name for m in large] == ["plain_4", "plain_5"]
    training = PanelTraining(config=CONFIG, private=private, others=others)
    first = train_panel(tmp_path / "panel", small, training)[1]
    kept = (first / "encoder.safetensors").stat().st_mtime_ns
    both = train_panel(tmp_path / "panel", large, training)
    assert both[0] == first
    assert (first / "encoder.safetensors").stat().st_mtime_ns == kept
    assert len({load_trained(f).sha256 for f in both}) == 2


def test_an_interrupted_panel_is_unfinished_until_the_same_call_has_finished_it(digits: Data, tmp_path: Path) -> None:
    members = tuple(m for m in panel_specs() if m.name in ("plain_3", "plain_4"))
    training = PanelTraining(config=CONFIG, private=_part(digits, 0, 64), others=_part(digits, 64, 200))

    def stop(what: str, _done: int, _total: int) -> None:
        if what.startswith("member 2 of 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_panel(tmp_path / "panel", members, training, callbacks=Callbacks(progress=stop))
    with pytest.raises(SuspectError, match="panel is unfinished"):
        load_trained(train_folders_in(tmp_path / "panel")[0])
    both = train_panel(tmp_path / "panel", members, training)
    assert train_folders_in(tmp_path / "panel") == both


def test_siblings_start_from_the_base_checkpoint(victim: Path, digits: Data, tmp_path: Path) -> None:
    private, others = _part(digits, 0, 64), _part(digits, 64, 200)
    before = load_trained(victim)  # stands for the base checkpoint
    some = [m for m in panel_specs(from_checkpoint=True) if m.name in ("plain_0", "sibling_0", "sibling_2")]
    still = replace(CONFIG, lr=1e-9)
    training = PanelTraining(config=still, private=private, others=others, epochs=2, base_checkpoint=before)
    folders = train_panel(tmp_path / "panel", some, training)
    plain, first, second = map(load_trained, folders)
    assert [x.config["train"]["epochs"] for x in (plain, first, second)] == [2, 1, 1]
    assert [x.config.get("base_checkpoint") for x in (plain, first, second)] == [None, before.sha256, before.sha256]
    assert second.key is not None

    def weights(x: LoadedEncoder) -> dict[str, torch.Tensor]:
        assert isinstance(x.encoder, Encoder)
        return dict(x.encoder.named_parameters())

    for from_checkpoint in (first, second):
        assert all(torch.allclose(weights(from_checkpoint)[name], x, atol=1e-5) for name, x in weights(before).items())
    assert not all(torch.allclose(weights(plain)[name], x, atol=1e-5) for name, x in weights(before).items())
    with pytest.raises(TrainingError, match="need its base checkpoint"):
        train_panel(tmp_path / "other", some, PanelTraining(config=CONFIG, private=private, others=others))


def test_seeds_of_members_stay_those_of_the_benchmarks() -> None:
    offsets = {m.name: m.seed_offset for m in panel_specs(from_checkpoint=True)}
    known = {
        "plain_0": 3053302045,
        "watermarked_1": 2229199528,
        "rotation_invariant_2": 2640553506,
        "sibling_0": 1623886376,
        "distilled_from_watermarked_0": 2560764374,
        "distilled_from_sibling_0": 3691164451,
    }
    assert {name: offsets[name] for name in known} == known


def test_images_are_drawn_by_the_seed(digits: Data) -> None:
    first, again, other = (draw_images(digits, 50, s).images for s in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)


def test_what_is_refused(digits: Data) -> None:
    with pytest.raises(TrainingError, match="fewer than the victim's 64"):
        PanelTraining(config=CONFIG, private=_part(digits, 0, 64), others=_part(digits, 64, 100))
    with pytest.raises(TrainingError, match="not known how the victim was trained"):
        victim_training({})
    for wrong in (replace(CONFIG, method="embed"), replace(CONFIG, arch="custom")):
        with pytest.raises(TrainingError, match="cannot be trained as this victim was"):
            victim_training({"train": wrong.to_dict()})


def test_a_train_folder_is_one_member_and_a_mixed_folder_is_none_of_ours(victim: Path, tmp_path: Path) -> None:
    assert train_folders_in(victim) == [victim]
    shutil.copytree(victim, tmp_path / "victim")
    (tmp_path / "notes.txt").write_text("x")
    assert train_folders_in(tmp_path) == [tmp_path]
    assert train_folders_in(tmp_path / "weights.onnx") == [tmp_path / "weights.onnx"]
