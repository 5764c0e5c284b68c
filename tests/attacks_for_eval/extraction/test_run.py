"""A theft as a folder: what is written, resuming, budgets and methods."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attacks_for_eval.extraction.black_box import BudgetError
from attacks_for_eval.extraction.config import METHODS, ExtractionConfig
from attacks_for_eval.extraction.labels import RESPONSE_KINDS
from attacks_for_eval.extraction.run import STORE, extract_to, serve_task
from ownership.encoders.images import represent
from ownership.errors import TrainingError
from ownership.suspects.suspect import load_encoder
from watermark_training.data import Data
from watermark_training.train_folder import load_trained
from watermark_training.training import Trained

CONFIG = ExtractionConfig(loss="infonce", arch="tiny", queries=1500, epochs=1, batch_size=256)


@pytest.mark.parametrize("method", METHODS)
def test_a_theft_by_every_method(method: str, trained: Trained, digits: Data, tmp_path: Path) -> None:
    config = replace(CONFIG, queries=64, batch_size=32)
    spent = extract_to(
        tmp_path / "t", trained.encoder, "v", digits, config, method=method, head=trained.projection_head
    )
    record = json.loads((tmp_path / "t/config.json").read_text())
    costs = {"recreate-head": 64 * 2 + 64, "averaging": 640}
    assert spent == record["queries"] == costs.get(method, 64)
    assert record["unique_images"] == (spent if method != "averaging" else 64)
    assert record["method"] == method
    assert {p.name for p in (tmp_path / "t").iterdir()} == {"config.json", "encoder.onnx", "encoder.safetensors"}
    a, b = (load_encoder(tmp_path / f"t/encoder.{s}").encoder for s in ("safetensors", "onnx"))
    torch.testing.assert_close(represent(a, digits.images[:9]), represent(b, digits.images[:9]), atol=1e-4, rtol=1e-4)
    before = (tmp_path / "t/encoder.safetensors").stat().st_mtime_ns
    again = extract_to(
        tmp_path / "t", trained.encoder, "v", digits, config, method=method, head=trained.projection_head
    )
    assert again == spent
    assert (tmp_path / "t/encoder.safetensors").stat().st_mtime_ns == before


def test_a_spent_budget_keeps_answers_and_a_larger_one_goes_on(trained: Trained, digits: Data, tmp_path: Path) -> None:
    with pytest.raises(BudgetError):
        extract_to(tmp_path / "t", trained.encoder, "v", digits, CONFIG, budget=1100)
    assert [p.name for p in (tmp_path / "t").iterdir()] == [STORE]
    with pytest.raises(TrainingError, match="another victim"):  # its answers are not the other one's
        extract_to(tmp_path / "t", trained.encoder, "w", digits, CONFIG)
    with pytest.raises(BudgetError):  # the budget is over all runs
        extract_to(tmp_path / "t", trained.encoder, "v", digits, CONFIG, budget=1100)
    assert extract_to(tmp_path / "t", trained.encoder, "v", digits, CONFIG, budget=1500) == 1500
    assert not (tmp_path / "t" / STORE).exists()


def test_bad_thefts_are_said(trained: Trained, digits: Data, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="unknown method"):
        extract_to(tmp_path / "t", trained.encoder, "v", digits, CONFIG, method="magic")
    with pytest.raises(TrainingError, match="projection head"):
        extract_to(tmp_path / "t", trained.encoder, "v", digits, CONFIG, method="access-head")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/config.json").write_text("{}")
    with pytest.raises(TrainingError, match="another encoder"):
        extract_to(tmp_path / "t", trained.encoder, "v", digits, CONFIG)
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / STORE).write_bytes(b"broken" * 99)
    with pytest.raises(TrainingError, match="damaged"):
        extract_to(tmp_path / "u", trained.encoder, "v", digits, CONFIG)


@pytest.mark.parametrize("responses", sorted(RESPONSE_KINDS))
def test_a_theft_from_what_a_classifier_says(responses: str, trained: Trained, digits: Data, tmp_path: Path) -> None:
    config = replace(CONFIG, loss="mse", queries=64, batch_size=32)
    victim, digest = serve_task(trained.encoder, "v", digits, responses)
    assert extract_to(tmp_path / "t", victim, digest, digits, config, output_kind=responses) == 64
    record = json.loads((tmp_path / "t/config.json").read_text())
    assert (record["output_kind"], record["num_features"]) == (responses, 64)
    for method in ("recreate-head", "cont-steal"):
        with pytest.raises(TrainingError, match="needs representations"):
            extract_to(tmp_path / "u", victim, digest, digits, CONFIG, output_kind=responses, method=method)


def test_declared_kinds_are_checked(trained: Trained, digits: Data, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="unknown kind"):
        extract_to(tmp_path / "t", trained.encoder, "v", digits, CONFIG, output_kind="vibes")
    with pytest.raises(TrainingError, match="no posteriors"):  # representations are no shares
        extract_to(tmp_path / "t", trained.encoder, "v", digits, replace(CONFIG, queries=64), output_kind="posteriors")
    with pytest.raises(TrainingError, match="a task serves no representations"):
        serve_task(trained.encoder, "v", digits, "representations")
    with pytest.raises(TrainingError, match="labelled images"):
        serve_task(trained.encoder, "v", replace(digits, labels=None), "labels")


def test_two_stages_are_two_thefts(trained: Trained, digits: Data, tmp_path: Path) -> None:
    """The second thief asks the first one's surrogate; the victim is not asked again."""
    config = replace(CONFIG, loss="mse", queries=256, batch_size=64)
    first = extract_to(tmp_path / "first", trained.encoder, "v", digits, config)
    surrogate = load_trained(tmp_path / "first")
    second = extract_to(tmp_path / "second", surrogate.encoder, surrogate.sha256, digits, replace(config, seed=1))
    assert (first, second) == (256, 256)
    assert json.loads((tmp_path / "second/config.json").read_text())["victim_sha256"] == surrogate.sha256
