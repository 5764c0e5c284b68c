"""Transforms of outputs and weights: what each does, that it repeats, and that partial RSA ignores changes of basis."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attacks_for_eval.evasion.apply import apply_transforms
from attacks_for_eval.evasion.outputs import OUTPUT_TRANSFORMS
from attacks_for_eval.evasion.weights import WEIGHT_TRANSFORMS, fine_tune, prune, quantize
from ownership.claims.claim import Claim
from ownership.encoders.images import represent
from ownership.errors import TrainingError
from ownership.evidence.querying import query
from ownership.evidence.statistics import score_one
from watermark_training.config import TrainConfig
from watermark_training.data import Data
from watermark_training.training import Trained, train


@pytest.mark.parametrize("name", sorted(OUTPUT_TRANSFORMS | WEIGHT_TRANSFORMS))
def test_a_transform_changes_responses_and_repeats_by_seed(name: str, trained: Trained, digits: Data) -> None:
    x = digits.images[:64]
    before = {k: v.clone() for k, v in trained.encoder.state_dict().items()}
    plain, a, b = (
        represent(e, x) for e in (trained.encoder, *(apply_transforms(trained.encoder, [name], seed=3) for _ in "ab"))
    )
    torch.testing.assert_close(a, b)
    assert a.shape != plain.shape or not torch.equal(a, plain)
    assert all(torch.equal(v, before[k]) for k, v in trained.encoder.state_dict().items())  # a copy was changed
    assert a.shape[1] == {"pad": 128, "project": 32}.get(name, 64)


def test_pruning_and_quantization(trained: Trained) -> None:
    zeros = total = 0
    for p in prune(trained.encoder, fraction=0.5).parameters():
        if p.ndim >= 2:
            zeros, total = zeros + int((p == 0).sum()), total + p.numel()
    assert zeros / total == pytest.approx(0.5, abs=0.01)
    for p in quantize(trained.encoder, bits=4).parameters():
        assert p.ndim < 2 or len(p.unique()) <= 15


@pytest.mark.parametrize("names", [["permute"], ["rotate_basis"], ["pad"], ["halve"], ["quantise", "permute", "pad"]])
def test_partial_rsa_sees_through_it(names: list[str], claim: Claim, victim: torch.nn.Module) -> None:
    """Rescaling single components, projection and rounding lose information: their effect is measured, not promised."""
    responses = query(apply_transforms(victim, names), claim.probes, "x")
    assert score_one(responses, claim.context)[0]["partial_rsa"] > 0.98


def test_order_and_names_are_checked(trained: Trained) -> None:
    with pytest.raises(TrainingError, match="unknown"):
        apply_transforms(trained.encoder, ["bleach"])
    with pytest.raises(TrainingError, match="must come before"):
        apply_transforms(trained.encoder, ["permute", "prune"])
    with pytest.raises(TrainingError, match="cannot be changed"):
        apply_transforms(lambda x: x.flatten(1), ["prune"])


def test_fine_tuning_moves_the_weights_from_where_they_are(trained: Trained, digits: Data) -> None:
    config = TrainConfig(arch="tiny", epochs=1, batch_size=64, lr=1e-4, watermark="none", temperature=0.2)
    tuned = fine_tune(trained.encoder, digits.images[600:856], config)
    fresh = train(digits.images[600:856], config).encoder

    def apart(a: torch.nn.Module, b: torch.nn.Module) -> float:
        return sum(float((x - y).detach().abs().sum()) for x, y in zip(a.parameters(), b.parameters(), strict=True))

    assert 0 < apart(tuned, trained.encoder) < apart(fresh, trained.encoder) / 10
    with pytest.raises(TrainingError, match="is not a small"):
        fine_tune(trained.encoder, digits.images[600:856], replace(config, arch="small"))
