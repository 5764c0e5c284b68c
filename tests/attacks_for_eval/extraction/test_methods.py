"""Extraction methods that prepare the responses, or use an encoder of the attacker's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from attacks_for_eval.choices import METHODS, OWN_ENCODER
from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig, with_method
from attacks_for_eval.extraction.extract import extract, prototypes
from attacks_for_eval.extraction.labels import extract_classifier
from attacks_for_eval.extraction.losses import rda_loss
from attacks_for_eval.extraction.objectives import TeachersObjective
from attacks_for_eval.extraction.responses import NEIGHBOURS, OUTLIERS, cleaned, strangeness
from ownership.encoders.architectures import Encoder, make_encoder
from ownership.encoders.images import represent
from ownership.errors import TrainingError
from watermark_training.data import Data
from watermark_training.training import Trained

CONFIG = ExtractionConfig(arch="tiny", queries=64, epochs=1, batch_size=32, precision="float32")
NEW = ("projector", "projector-augmented", "half-own", "rda", "rotated-prototypes", *sorted(OWN_ENCODER))


@pytest.fixture(scope="module")
def own() -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return make_encoder("tiny").eval()


@pytest.mark.parametrize("method", NEW)
def test_a_method_extracts_and_repeats_by_seed(method: str, trained: Trained, own: Encoder, digits: Data) -> None:
    config = with_method(CONFIG, method)
    boxes = [BlackBox(trained.encoder) for _ in range(2)]
    a, b = (extract(box, digits.images, config, own=own if method in OWN_ENCODER else None) for box in boxes)
    torch.testing.assert_close(represent(a, digits.images[:9]), represent(b, digits.images[:9]))
    assert boxes[0].queries == 64 * max(1, config.prototype_views)
    assert (method in OWN_ENCODER) is config.needs_own_encoder


@pytest.mark.parametrize("method", sorted(OWN_ENCODER))
def test_a_missing_own_encoder_is_named(method: str, trained: Trained, digits: Data) -> None:
    box = BlackBox(trained.encoder)
    with pytest.raises(TrainingError, match="own"):
        extract(box, digits.images, with_method(CONFIG, method))
    assert box.queries == 0


CONTRADICTIONS: list[dict[str, object]] = [
    {"own_share": 1.0},
    {"cleaning": "cse", "victim_view": "standard"},
    {"own_teacher": True, "projector": True},
]


@pytest.mark.parametrize("fields", CONTRADICTIONS)
def test_contradictions_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(TrainingError):
        replace(CONFIG, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [{"projector": True}, {"own_share": 0.5}, {"own_teacher": True}])
def test_what_needs_representations_is_no_method_against_a_classifier(
    fields: dict[str, object], trained: Trained, digits: Data
) -> None:
    box = BlackBox(trained.encoder)
    with pytest.raises(TrainingError, match="representations"):
        extract_classifier(box, "logits", digits.images, replace(CONFIG, **fields))  # type: ignore[arg-type]
    assert box.queries == 0


def test_the_loss_of_rda_against_a_naive_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(5, 3, generator=generator) for _ in range(2))
    a, b = F.normalize(x, dim=1).double().numpy(), F.normalize(y, dim=1).double().numpy()
    total = 0.0
    for i in range(5):
        positive = np.exp(a[i] @ b[i] / 0.07)
        others = sum(np.exp(a[i] @ b[j] / 0.07) + np.exp(a[i] @ a[j] / 0.07) for j in range(5) if j != i)
        total += -np.log(positive / (positive + others))
        total += -np.log((a[i] @ b[i] + 1) / ((a[i] - b[i]) ** 2).sum())
    assert float(rda_loss(x, y)) == pytest.approx(total / 5, rel=1e-4)
    assert bool(torch.isfinite(rda_loss(x, x)))


def test_a_prototype_is_the_mean_response_of_length_one(trained: Trained, digits: Data) -> None:
    """With views that do not change the image, it is the response itself."""
    config = replace(with_method(CONFIG, "rda"), victim_view="none", prototype_views=3)
    found = prototypes(BlackBox(trained.encoder), digits.images[:8], config, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, F.normalize(represent(trained.encoder, digits.images[:8]), dim=1))


def test_strangeness_against_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    x, own = rng.standard_normal((30, 4)), rng.standard_normal((30, 3))
    found = strangeness(torch.from_numpy(x), torch.from_numpy(own))

    def near(i: int) -> list[int]:
        others = sorted((j for j in range(30) if j != i), key=lambda j: float(np.linalg.norm(own[i] - own[j])))
        return others[:NEIGHBOURS]

    def mean(i: int) -> float:
        return float(np.mean([np.linalg.norm(x[i] - x[j]) for j in near(i)]))

    for i in range(30):
        assert float(found[i]) == pytest.approx(mean(i) / np.mean([mean(j) for j in near(i)]))


def test_inliers_drops_the_strangest_responses() -> None:
    """Responses that agree with the own encoder, but for a few moved far away."""
    x = torch.randn(100, 6, generator=torch.Generator().manual_seed(1))
    moved = x.clone()
    moved[:10] += 50 * torch.randn(10, 6, generator=torch.Generator().manual_seed(2))
    kept, responses = cleaned("inliers", moved, x, 0)
    assert len(kept) == round((1 - OUTLIERS) * 100)
    assert not set(range(10)) & set(kept.tolist())
    torch.testing.assert_close(responses, moved[kept])


@torch.no_grad()
def test_each_teacher_has_its_own_head() -> None:
    generator = torch.Generator().manual_seed(1)
    objective = TeachersObjective(4, [3, 5], generator)
    own, one, two = (torch.randn(6, d, generator=generator) for d in (4, 3, 5))
    expected = 0.0
    for head, target in zip(objective.heads, (one, two), strict=True):
        found = head(own)
        cosine = sum(float(F.cosine_similarity(found[i], target[i], dim=0)) for i in range(6)) / 6
        gaps = [abs(float(v)) for v in (found - target).flatten()]
        expected += 1 - cosine + sum(0.5 * g * g if g < 1 else g - 0.5 for g in gaps) / len(gaps)
    assert float(objective(own, torch.cat([one, two], 1), None)) == pytest.approx(expected / 2, rel=1e-5)


def test_every_method_that_cleans_or_has_a_second_teacher_is_listed() -> None:
    listed = {m for m in METHODS if not m.endswith("-head") and with_method(CONFIG, m).needs_own_encoder}
    assert listed == OWN_ENCODER
