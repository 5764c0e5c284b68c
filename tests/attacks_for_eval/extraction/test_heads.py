"""Recreating and using a projection head: queries, and what is learned."""

from __future__ import annotations

import pytest
import torch
from support.encoders import encoder

from attacks_for_eval.extraction.black_box import BlackBox, BudgetError
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from attacks_for_eval.extraction.heads import HeadConfig, recreate_head
from ownership.encoders.images import as_input, as_uint8, represent
from ownership.encoders.projection import projection_head
from ownership.errors import TrainingError
from ownership.evidence.similarity import linear_cka
from watermark_training.augment import simclr_view
from watermark_training.data import Data
from watermark_training.losses import nt_xent_loss
from watermark_training.training import Trained

CONFIG = HeadConfig(queries=256, epochs=6, batch_size=64, projection_dim=16)


def test_a_recreated_head_brings_views_together_and_every_view_is_a_query(trained: Trained, digits: Data) -> None:
    box = BlackBox(trained.encoder)
    head = recreate_head(box, digits.images[:400], CONFIG)
    assert box.queries == 2 * 256 * 6
    assert not any(p.requires_grad for p in head.parameters())
    x, g = as_input(digits.images[600:856]), torch.Generator().manual_seed(0)
    a, b = (represent(trained.encoder, as_uint8(simclr_view(x, g))) for _ in range(2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # else it depends on the tests before
        fresh = projection_head(64, 64, 16)
    assert nt_xent_loss(head(a), head(b)).item() < nt_xent_loss(fresh(a), fresh(b)).item() - 0.2


def test_extraction_through_the_victims_own_head(trained: Trained, digits: Data) -> None:
    """Access Head: comparing latent vectors alone still pulls representations together."""
    config = ExtractionConfig(loss="infonce", arch="tiny", queries=512, epochs=20, batch_size=64, lr=2e-3)
    before = [p.clone() for p in trained.projection_head.parameters()]
    surrogate = extract(BlackBox(trained.encoder), digits.images[:600], config, head=trained.projection_head)
    assert all(torch.equal(a, b) for a, b in zip(before, trained.projection_head.parameters(), strict=True))
    responses, own, spec = (
        represent(e, digits.images[600:900]).double().numpy() for e in (trained.encoder, surrogate, encoder(4))
    )
    assert linear_cka(own, responses) > linear_cka(spec, responses) + 0.1


def test_bad_heads_are_said(trained: Trained, digits: Data) -> None:
    with pytest.raises(BudgetError):
        recreate_head(BlackBox(trained.encoder, budget=300), digits.images[:400], CONFIG)
    with pytest.raises(TrainingError, match="queries from"):
        recreate_head(BlackBox(trained.encoder), digits.images[:10], CONFIG)
    with pytest.raises(TrainingError, match="epochs"):
        HeadConfig(epochs=0)
