"""An extraction as a folder: what is written, resuming, budgets and methods."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attacks_for_eval.choices import METHODS, OWN_ENCODER
from attacks_for_eval.extraction.black_box import BudgetError
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.labels import CLASSIFIER_OUTPUTS
from attacks_for_eval.extraction.run import STORE, Victim, classifier_victim, extract_to
from ownership.encoders.images import represent
from ownership.errors import SuspectError, TrainingError
from ownership.suspects.suspect import load_encoder
from watermark_training.data import Data
from watermark_training.encoder_files import save_encoder
from watermark_training.loaded_encoder import load_trained
from watermark_training.training import Trained

CONFIG = ExtractionConfig(loss="infonce", arch="tiny", queries=1500, epochs=1, batch_size=256)


@pytest.mark.parametrize("method", METHODS)
def test_extraction_by_every_method(method: str, trained: Trained, digits: Data, tmp_path: Path) -> None:
    config = replace(CONFIG, queries=64, batch_size=32)
    victim = Victim(encoder=trained.encoder, name="v", projection_head=trained.projection_head)
    save_encoder(trained.encoder, "tiny", tmp_path / "own")
    own = load_trained(tmp_path / "own/encoder.safetensors") if method in OWN_ENCODER else None
    made = extract_to(tmp_path / "t", victim, digits, config, method=method, own=own, onnx=True)
    assert made.created
    record = json.loads((tmp_path / "t/config.json").read_text())
    costs = {"recreate-head": 64 * 2 + 64, "averaging": 640, "rda": 640, "rotated-prototypes": 640}
    assert made.queries == record["queries"] == costs.get(method, 64)
    assert made.unique_images == record["unique_images"] == (made.queries if method != "averaging" else 64)
    assert record["method"] == method
    assert {p.name for p in (tmp_path / "t").iterdir()} == {"config.json", "encoder.onnx", "encoder.safetensors"}
    a, b = (load_encoder(tmp_path / f"t/encoder.{s}").encoder for s in ("safetensors", "onnx"))
    torch.testing.assert_close(represent(a, digits.images[:9]), represent(b, digits.images[:9]), atol=1e-4, rtol=1e-4)
    before = (tmp_path / "t/encoder.safetensors").stat().st_mtime_ns
    again = extract_to(tmp_path / "t", victim, digits, config, method=method, own=own)
    assert again == replace(made, created=False)
    assert (tmp_path / "t/encoder.safetensors").stat().st_mtime_ns == before


def test_a_used_up_budget_keeps_the_responses(trained: Trained, digits: Data, tmp_path: Path) -> None:
    victim = Victim(encoder=trained.encoder, name="v")
    with pytest.raises(BudgetError):
        extract_to(tmp_path / "t", replace(victim, budget=1100), digits, CONFIG)
    assert {p.name for p in (tmp_path / "t").iterdir()} == {STORE, "unfinished.json"}
    with pytest.raises(SuspectError, match="is unfinished"):
        load_trained(tmp_path / "t")
    with pytest.raises(TrainingError, match="another victim"):
        extract_to(tmp_path / "t", replace(victim, name="w"), digits, CONFIG)
    with pytest.raises(BudgetError):  # the budget is over all runs
        extract_to(tmp_path / "t", replace(victim, budget=1100), digits, CONFIG)
    assert extract_to(tmp_path / "t", replace(victim, budget=1500), digits, CONFIG).queries == 1500
    assert {p.name for p in (tmp_path / "t").iterdir()} == {"config.json", "encoder.safetensors"}


def test_what_is_refused(trained: Trained, digits: Data, tmp_path: Path) -> None:
    victim = Victim(encoder=trained.encoder, name="v")
    with pytest.raises(TrainingError, match="unknown method"):
        extract_to(tmp_path / "t", victim, digits, CONFIG, method="magic")
    with pytest.raises(TrainingError, match="projection head"):
        extract_to(tmp_path / "t", victim, digits, CONFIG, method="access-head")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/config.json").write_text("{}")
    with pytest.raises(TrainingError, match="another encoder"):
        extract_to(tmp_path / "t", victim, digits, CONFIG)
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / STORE).write_bytes(b"broken" * 99)
    with pytest.raises(TrainingError, match="damaged"):
        extract_to(tmp_path / "u", victim, digits, CONFIG)


@pytest.mark.parametrize("output", sorted(CLASSIFIER_OUTPUTS))
def test_extraction_from_a_classifier(output: str, trained: Trained, digits: Data, tmp_path: Path) -> None:
    config = replace(CONFIG, loss="mse", queries=64, batch_size=32)
    victim = classifier_victim(Victim(encoder=trained.encoder, name="v", output_kind=output), digits)
    assert extract_to(tmp_path / "t", victim, digits, config).queries == 64
    record = json.loads((tmp_path / "t/config.json").read_text())
    assert (record["output_kind"], record["num_features"]) == (output, 64)
    for method in ("recreate-head", "cont-steal"):
        with pytest.raises(TrainingError, match="needs representations"):
            extract_to(tmp_path / "u", victim, digits, CONFIG, method=method)


def test_declared_kinds_are_checked(trained: Trained, digits: Data, tmp_path: Path) -> None:
    victim = Victim(encoder=trained.encoder, name="v")
    with pytest.raises(TrainingError, match="unknown output kind"):
        extract_to(tmp_path / "t", replace(victim, output_kind="vibes"), digits, CONFIG)
    with pytest.raises(TrainingError, match="are not posteriors"):  # representations are not probabilities
        extract_to(tmp_path / "t", replace(victim, output_kind="posteriors"), digits, replace(CONFIG, queries=64))
    with pytest.raises(TrainingError, match="does not return representations"):
        classifier_victim(victim, digits)
    with pytest.raises(TrainingError, match="labeled images"):
        classifier_victim(replace(victim, output_kind="labels"), replace(digits, labels=None))


def test_two_stages_are_two_extractions(trained: Trained, digits: Data, tmp_path: Path) -> None:
    """The second extraction queries the first surrogate; the victim is not queried again."""
    config = replace(CONFIG, loss="mse", queries=256, batch_size=64)
    first = extract_to(tmp_path / "first", Victim(encoder=trained.encoder, name="v"), digits, config)
    surrogate = load_trained(tmp_path / "first")
    second = extract_to(tmp_path / "second", Victim.of(surrogate), digits, replace(config, seed=1))
    assert (first.queries, second.queries) == (256, 256)
    assert json.loads((tmp_path / "second/config.json").read_text())["victim_sha256"] == surrogate.sha256
