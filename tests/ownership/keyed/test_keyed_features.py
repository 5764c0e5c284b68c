"""Features of an encoder: computed on the pool, named by the commitment, read at the test without the encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.encoders import encoder
from support.independent_verifier import Bad, check_key
from support.keys import claimed, rewritten
from torch import Tensor

from ownership.claims.claim import Claim
from ownership.claims.key_ranks import key_rank
from ownership.encoders.images import represent, three_channels
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.keyed.anchoring import save_key
from ownership.keyed.drawn import Drawn, check_encoder
from ownership.keyed.features import N_ROTATIONS, EncoderSource, PoolFeatures
from ownership.keyed.key import Key
from ownership.keyed.maps import Targets
from ownership.keyed.pool import KeyMaterial, pool_of
from ownership.watermark import rotate
from watermark_training.data import load_data
from watermark_training.encoder_files import weights_bytes


@cache
def pool() -> Tensor:
    return load_data("digits").images[:300]


@cache
def features() -> PoolFeatures:
    file = Path(__file__)  # any bytes: nothing of the file is read but its digest
    return PoolFeatures.compute(pool(), encoder(3), file)


@cache
def key() -> Key:
    return Key(secret=bytes(range(32)), pool=pool_of(pool()), probes=200, features=features().named)


@cache
def material() -> KeyMaterial:
    return KeyMaterial.draw(key(), pool(), features().rows)


def test_features_agree_with_a_naive_loop() -> None:
    images = pool()[:5].float() / 255
    found = EncoderSource(encoder(3))(images)
    for image, (as_it_is, averaged) in zip(images, found, strict=True):
        views = []
        for i in range(N_ROTATIONS):
            turned = rotate(image[None], torch.tensor([2 * np.pi * i / N_ROTATIONS]))
            with torch.no_grad():
                z = encoder(3)(three_channels(turned))[0]
            views.append(z / z.norm())
        assert as_it_is.numpy() == pytest.approx(views[0].numpy(), abs=1e-5)
        assert averaged.numpy() == pytest.approx(torch.stack(views).mean(0).numpy(), abs=1e-5)


def test_the_commitment_names_the_features() -> None:
    plain = Key(secret=key().secret, pool=key().pool, probes=200)
    other = replace(key(), features=replace(features().named, sha256="0" * 64))
    assert len({key().commitment, plain.commitment, other.commitment}) == 3
    assert Key.from_dict(key().to_dict()) == key()


def test_targets_of_probes_are_those_of_the_stored_rows() -> None:
    targets = Targets(material(), EncoderSource(encoder(3)))
    with torch.no_grad():
        directly = targets(material().probes.float() / 255)[:, 4:].numpy()
    frame = targets.frame("invariant")
    stored = targets.features()["invariant"] @ (frame / np.linalg.norm(frame, axis=0))
    # stored as float16, whitened, and so off by little
    assert np.abs(directly - stored).max() < 0.05
    assert stored.std(0) == pytest.approx(np.ones(4), abs=0.5)


def test_the_test_needs_no_encoder_and_training_does() -> None:
    assert 0 < check_encoder(material(), represent(encoder(1), material().probes).double().numpy(), 99).pvalue <= 1
    with pytest.raises(ClaimError, match="encoder"):
        Targets(material())(pool()[:2].float() / 255)


def test_the_features_themselves_are_baselines() -> None:
    rows = material().features
    assert rows is not None
    for i in range(2):
        centred = rows.rows[:, i].double() - rows.rows[:, i].double().mean(0)
        mine = Drawn.of(material()).baselines[1 + i]
        assert (centred @ centred.T).numpy() == pytest.approx(mine @ mine.T, abs=1e-8)  # the same up to a rotation


def test_an_encoders_weights_enter_no_state_dict() -> None:
    assert not Targets(material(), EncoderSource(encoder(3))).state_dict()


def test_other_features_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClaimIntegrityError, match="features"):
        KeyMaterial.draw(key(), pool(), features().rows.flip(0))
    with pytest.raises(ClaimIntegrityError, match="missing"):
        KeyMaterial.draw(key(), pool())
    of = material().features
    assert of is not None
    rows = of.rows.clone()
    rows[7, 1, 0] += 1
    with pytest.raises(ClaimIntegrityError, match="edited"):
        replace(material(), features=replace(of, rows=rows)).check()
    with pytest.raises(ClaimIntegrityError, match="committed"):
        replace(material(), features=replace(of, digests=of.digests[::-1])).check()


def test_an_encoder_without_finite_vectors_is_refused() -> None:
    with pytest.raises(ClaimError, match="finite"):
        PoolFeatures.compute(pool()[:100], lambda x: torch.full((len(x), 4), torch.nan), Path(__file__))


def test_what_cannot_be_used_is_refused_when_the_key_is_made(tmp_path: Path) -> None:
    few = PoolFeatures(features().rows[:, :, :20].contiguous(), ".onnx", b"")
    made = Key(secret=bytes(32), pool=pool_of(pool()), probes=200, features=few.named)
    with pytest.raises(ClaimError, match="20 numbers an image"):
        save_key(made, pool(), tmp_path, few)
    alike = pool()[:1].expand(300, -1, -1, -1).contiguous()
    with pytest.raises(ClaimError, match="alike"):
        save_key(Key(secret=bytes(32), pool=pool_of(alike), probes=200), alike, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_key_folder_holds_encoder_and_features(tmp_path: Path) -> None:
    file = tmp_path / "public.safetensors"
    file.write_bytes(weights_bytes(encoder(3), "tiny"))
    given = PoolFeatures.compute(pool(), encoder(3), file)
    made = Key(secret=bytes(32), pool=pool_of(pool()), probes=200, features=given.named)
    folder = tmp_path / "key"
    folder.mkdir()
    save_key(made, pool(), folder, given)
    assert all(p.stat().st_mode & 0o077 == 0 for p in folder.iterdir() if p.name != "commitment.json")
    loaded = KeyMaterial.load(folder)
    assert loaded.key == made
    assert loaded.features is not None
    assert loaded.features.encoder == folder / "feature_encoder.safetensors"
    assert torch.equal(loaded.features.rows, given.rows[made.probe_indices()])
    again = PoolFeatures.load(folder)
    assert again is not None
    assert again.named == given.named
    (folder / "features.safetensors").write_bytes(b"x")
    with pytest.raises(ClaimError, match=r"features\.safetensors is damaged"):
        KeyMaterial.load(folder)


def test_a_claim_holds_the_features_and_every_check_redoes_them(tmp_path: Path) -> None:
    claim = claimed(encoder(1), material(), pool()).save(tmp_path / "claim")
    loaded = Claim.load(tmp_path / "claim")
    assert loaded.material is not None
    assert loaded.material.features is not None
    assert torch.equal(loaded.material.features.rows, material().features.rows)  # type: ignore[union-attr]
    check_key(tmp_path / "claim", read_claim(tmp_path), None)
    ranks = [key_rank(c, c.responses["victim"]).pvalue for c in (claim, loaded)]
    assert ranks[0] == ranks[1]
    of = loaded.material.features
    rows = of.rows.clone()
    rows[3, 0, 1] += 1
    rewritten(tmp_path / "claim", {"features.safetensors": replace(of, rows=rows).to_bytes()})
    with pytest.raises(ClaimIntegrityError, match="features of the probes"):
        Claim.load(tmp_path / "claim")
    with pytest.raises(Bad, match="features of the probes"):
        check_key(tmp_path / "claim", read_claim(tmp_path), None)


def read_claim(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "claim/claim.json").read_bytes())
    return content
