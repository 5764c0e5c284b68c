"""Twins on disk: what was committed to is what is loaded, and an edited twin is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from support.encoders import encoder, member
from support.keys import key_of

from ownership.claims.record import NamedEncoder
from ownership.claims.twins import TWINS, Twins, scores_against
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.evidence.querying import query
from ownership.keyed.pool import KeyMaterial
from ownership.keyed.twin_test import reaching
from watermark_training.data import Data


@pytest.fixture(scope="module")
def material(digits: Data) -> KeyMaterial:
    return key_of(digits.images[:120])


def named(seed: int) -> NamedEncoder:
    return NamedEncoder(member(f"v{seed}", "twin", encoder(seed)), encoder(seed))


@pytest.fixture(scope="module")
def twins(material: KeyMaterial) -> Twins:
    return Twins.commit([named(i) for i in (1, 2, 3)], material, {"epochs": 0})


def test_twins_are_committed_to_in_an_order_of_their_own(twins: Twins, material: KeyMaterial) -> None:
    again = Twins.commit([named(i) for i in (3, 1, 2)], material, {"epochs": 0})
    assert again.commitment == twins.commitment
    with pytest.raises(ClaimError, match="occurs twice"):
        Twins.commit([named(1), named(1)], material, {})
    with pytest.raises(ClaimError, match="1 encoders"):
        Twins.commit([named(1)], material, {})


def test_stored_twins_are_the_same(twins: Twins, material: KeyMaterial, tmp_path: Path) -> None:
    twins.save(tmp_path / "twins")
    found = Twins.load(tmp_path / "twins")
    found.check(material)
    assert (found.commitment, found.files) == (twins.commitment, twins.files)
    assert (tmp_path / "twins/commitment.json").read_bytes() == twins.commitment.commitment
    secret = [p for p in (tmp_path / "twins").rglob("*") if p.is_file() and p.name != "commitment.json"]
    assert len(secret) == 4
    assert all(not p.stat().st_mode & 0o077 for p in secret)
    with pytest.raises(ClaimError, match="exists already"):
        twins.save(tmp_path / "twins")


def test_an_edited_twin_is_refused(twins: Twins, material: KeyMaterial, tmp_path: Path) -> None:
    twins.save(tmp_path / "twins")
    file = tmp_path / "twins/representations/1.safetensors"
    rows = load(file.read_bytes())["public"]
    file.write_bytes(save({"public": rows + 1e-3 * torch.ones_like(rows)}))
    with pytest.raises(ClaimIntegrityError, match="edited"):
        Twins.load(tmp_path / "twins")
    file.unlink()
    with pytest.raises(ClaimError):
        Twins.load(tmp_path / "twins")
    (tmp_path / "twins" / TWINS).unlink()
    with pytest.raises(ClaimError, match=r"holds no twins\.json"):
        Twins.load(tmp_path / "twins")


def test_twins_of_another_key_are_refused(twins: Twins, digits: Data) -> None:
    with pytest.raises(ClaimError, match="other probes"):
        twins.check(key_of(digits.images[:120].flip(0)))


def test_every_twin_ranks_first_for_its_own_responses(twins: Twins, material: KeyMaterial) -> None:
    for seed in (1, 2, 3):
        responses = query(encoder(seed), {"public": material.probes}, "suspect")
        scores = scores_against(twins, responses)
        own = [t.encoder for t in twins.commitment.twins].index(named(seed).record.sha256)
        assert reaching(scores, own) == 0
        assert scores_against(twins, responses) is scores  # computed once


def test_a_twin_that_is_not_finite_is_refused(material: KeyMaterial) -> None:
    class Broken(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), 4), np.nan)

    with pytest.raises(ClaimError, match="not finite"):
        Twins.commit([named(1), NamedEncoder(member("v2", "twin", encoder(2)), Broken())], material, {})
