"""Reference surrogates: the architecture they take, what they cost, that they repeat."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from support.encoders import encoder

from attacks_for_eval.claims.references import ReferenceConfig, pick_architecture, reference_surrogates
from ownership.encoders.images import represent
from ownership.evidence.similarity import linear_cka
from ownership.io.canonical import sha256
from watermark_training.data import Data
from watermark_training.training import Trained


def test_the_architecture_is_the_victims_or_one_of_its_dimension(trained: Trained, digits: Data) -> None:
    x = digits.images[:4]
    assert pick_architecture(trained.encoder, "tiny", x) == "tiny"
    assert pick_architecture(trained.encoder, None, x) == "tiny"
    assert pick_architecture(lambda images: torch.zeros(len(images), 512), "no such", x) == "resnet18"
    assert pick_architecture(lambda images: torch.zeros(len(images), 7), None, x) is None


def test_references_are_surrogates_and_repeat(trained: Trained, digits: Data, tmp_path: Path) -> None:
    config = ReferenceConfig(losses=("mse", "infonce"), epochs=20)
    configs = (config, replace(config, keep=tmp_path / "kept"))
    runs = [reference_surrogates(trained.encoder, "tiny", digits.images[:300], c) for c in configs]
    kept = {p.name: sha256(p.read_bytes()) for p in (tmp_path / "kept").iterdir()}
    assert kept == {f"{m.name}.safetensors": m.sha256 for m, _ in runs[0]}
    assert [m.name for m, _ in runs[0]] == ["reference_mse", "reference_infonce"]
    assert [m.sha256 for m, _ in runs[0]] == [m.sha256 for m, _ in runs[1]]
    responses, spec = (represent(e, digits.images[600:800]).double().numpy() for e in (trained.encoder, encoder(4)))
    for member, surrogate in runs[0]:
        assert member.kind == "reference"
        assert linear_cka(represent(surrogate, digits.images[600:800]).double().numpy(), responses) > linear_cka(
            spec, responses
        )
