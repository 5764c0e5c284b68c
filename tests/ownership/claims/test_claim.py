"""The claim as a folder: round trip, and one broken thing at a time (tamper table)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.encoders import encoder, member
from torch import Tensor

from ownership.claims.build import build_claim
from ownership.claims.claim import Claim
from ownership.claims.probes import ClaimImages
from ownership.claims.record import NamedEncoder
from ownership.claims.strata import leave_one_out_rejections
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import images_sha256
from ownership.errors import ClaimError, ClaimIntegrityError, DataError, OwnershipError
from ownership.io.canonical import canonical_json, sha256
from ownership.plan import Plan
from ownership.reports.claim_text import describe
from watermark_training.data import Data


def test_a_claim_survives_the_disk(claim: Claim, claim_folder: Path) -> None:
    loaded = Claim.load(claim_folder)
    assert loaded.plan == claim.plan
    assert loaded.members == claim.members
    assert loaded.panel_scores.members == claim.panel_scores.members
    assert loaded.panel_scores.references == claim.panel_scores.references
    assert loaded.watermark is not None
    assert claim.watermark is not None
    assert loaded.watermark.key == claim.watermark.key
    assert all(torch.equal(loaded.probes[k], claim.probes[k]) for k in claim.probes)
    for name, responses in claim.responses.items():
        for k, v in responses.sets.items():
            np.testing.assert_array_equal(loaded.responses[name].sets[k], v)
    assert len(loaded.sha256) == 64


def test_writing_twice_gives_the_same_bytes(claim: Claim, claim_folder: Path, tmp_path: Path) -> None:
    saved = claim.save(tmp_path / "again")
    assert saved.sha256 == Claim.load(claim_folder).sha256
    for path in claim_folder.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(claim_folder)).read_bytes()


def test_secret_parts_are_for_the_owner_only(claim_folder: Path) -> None:
    for path in claim_folder.rglob("*.*"):
        assert path.stat().st_mode & 0o077 == 0


def test_an_existing_claim_is_never_overwritten(claim: Claim, claim_folder: Path) -> None:
    with pytest.raises(ClaimError, match="exists already"):
        claim.save(claim_folder)


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.99])
@pytest.mark.parametrize(
    "part",
    [
        "claim.json",
        "key.json",
        "probes.safetensors",
        "private_probes.safetensors",
        "predictor.safetensors",
        "projection_head.safetensors",
        "representations/victim.safetensors",
        "representations/m4.safetensors",
    ],
)
def test_one_changed_byte_is_noticed(claim_folder: Path, tmp_path: Path, part: str, where: float) -> None:
    copy = shutil.copytree(claim_folder, tmp_path / "claim")
    path = copy / part
    _flip(path, int(where * path.stat().st_size))
    with pytest.raises(ClaimIntegrityError, match=part.replace(".", r"\.")) as e:
        Claim.load(copy)
    assert e.value.exit_code == 6


def test_a_changed_space_is_noticed(claim_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(claim_folder, tmp_path / "claim")
    (copy / "claim.json").write_bytes((copy / "claim.json").read_bytes() + b" ")
    with pytest.raises(ClaimIntegrityError):
        Claim.load(copy)


def test_a_missing_part_is_noticed(claim_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(claim_folder, tmp_path / "claim")
    (copy / "representations/m4.safetensors").unlink()
    with pytest.raises(ClaimIntegrityError, match="missing"):
        Claim.load(copy)


def test_swapped_parts_are_noticed(claim_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(claim_folder, tmp_path / "claim")
    a, b = (copy / f"representations/m{i}.safetensors" for i in (1, 2))
    x, y = a.read_bytes(), b.read_bytes()
    a.write_bytes(y)
    b.write_bytes(x)
    with pytest.raises(ClaimIntegrityError):
        Claim.load(copy)


def _resign(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Edits claim.json and makes its digest right again: what an intruder can do until claims are sealed."""
    content = json.loads((folder / "claim.json").read_bytes())
    content.pop("content_sha256")
    change(content)
    content["content_sha256"] = sha256(canonical_json(content))
    (folder / "claim.json").write_bytes(canonical_json(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(format_version=99),
        lambda c: c.update(format_version=True),
        lambda c: c.update(parts=[]),
        lambda c: c.pop("plan"),
        lambda c: c["plan"].update(alpha=0.9),
        lambda c: c["plan"].update(alpha="x"),
        lambda c: c["plan"].update(surprise=1),
        lambda c: c["panel"][0].pop("kind"),
        lambda c: c["panel"][0].pop("teacher"),
        lambda c: c["panel"][0].update(more=1),
        lambda c: c.pop("keys_tried"),
        lambda c: c.update(keys_tried=0),
        lambda c: c.update(surprise=1),
        lambda c: c.update(scores={"cka": {"m0": 1.0}}),  # no score is stored, so none can be edited
        lambda c: c["panel"][0].update(kind="friend"),
        lambda c: c["panel"][0].update(name="unknown"),
        lambda c: c["victim"].update(dim=7),
        lambda c: c["parts"].pop("probes.safetensors"),
    ],
)
def test_a_malformed_claim_is_refused(
    claim_folder: Path, tmp_path: Path, change: Callable[[dict[str, object]], object]
) -> None:
    copy = shutil.copytree(claim_folder, tmp_path / "claim")
    _resign(copy, change)
    with pytest.raises(ClaimError):
        Claim.load(copy)


@pytest.mark.parametrize("images", [torch.arange(200) + 101, torch.arange(200) - 1, torch.arange(9), torch.zeros(200)])
def test_rotated_probes_of_images_that_are_not_there_are_refused(claim: Claim, tmp_path: Path, images: Tensor) -> None:
    assert claim.watermark_probes is not None
    good, bad = (replace(claim.watermark_probes, sources=x) for x in (torch.arange(200), images))
    replace(claim, watermark_probes=good).save(tmp_path / "good")
    assert Claim.load(tmp_path / "good").watermark_probes is not None
    replace(claim, watermark_probes=bad).save(tmp_path / "bad")
    with pytest.raises(ClaimError, match="malformed"):
        Claim.load(tmp_path / "bad")


def test_parts_outside_the_folder_are_refused(claim_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(claim_folder, tmp_path / "claim")
    (tmp_path / "x").write_bytes(b"x")
    _resign(copy, lambda c: c["parts"].update({"../x": {"sha256": sha256(b"x"), "bytes": 1}}))  # type: ignore[attr-defined]
    with pytest.raises(ClaimIntegrityError):
        Claim.load(copy)


def test_what_is_no_claim_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ClaimError, match="no claim") as e:
            Claim.load(path)
        assert e.value.exit_code == 2


def test_an_unwritable_folder_is_said(claim: Claim, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OwnershipError, match="cannot write"):
        claim.save(tmp_path / "file" / "claim")


def _panel(plain: int, watermarked: int) -> list[NamedEncoder]:
    kinds = ["plain"] * plain + ["watermarked"] * watermarked
    return [NamedEncoder(member(f"m{i}", kind), encoder(10 + i)) for i, kind in enumerate(kinds)]


@pytest.mark.parametrize(("plain", "watermarked"), [(0, 0), (4, 0), (5, 3), (4, 5)])
def test_too_small_a_panel_is_refused(digits: Data, victim: Encoder, plain: int, watermarked: int) -> None:
    with pytest.raises(ClaimError, match="too small a panel"):
        build_claim(
            NamedEncoder(member("victim", "victim"), victim),
            ClaimImages(digits.images[:50], digits.images[50:150]),
            _panel(plain, watermarked),
        )


def test_identical_responses_count_once(digits: Data, victim: Encoder) -> None:
    panel = [*_panel(5, 0), NamedEncoder(member("twin", "plain"), encoder(10))]
    built = build_claim(
        NamedEncoder(member("victim", "victim"), victim), ClaimImages(digits.images[:50], digits.images[50:350]), panel
    )
    assert len(built.members) == 5
    assert built.dropped == ("twin: gives the same responses as m0",)
    with pytest.raises(ClaimError, match="too small"):  # four encoders and a twin are four
        build_claim(
            NamedEncoder(member("victim", "victim"), victim),
            ClaimImages(digits.images[:50], digits.images[50:350]),
            [*panel[:4], panel[-1]],
        )


def test_the_victim_is_no_panel_member(digits: Data, victim: Encoder) -> None:
    with pytest.raises(ClaimError, match="victim's own responses"):
        build_claim(
            NamedEncoder(member("victim", "victim"), victim),
            ClaimImages(digits.images[:50], digits.images[50:350]),
            [*_panel(5, 0), NamedEncoder(member("v", "plain"), victim)],
        )


def test_unusable_panel_answers_are_named(digits: Data, victim: Encoder) -> None:
    broken = NamedEncoder(member("broken", "plain"), lambda x: torch.full((len(x), 4), float("nan")))
    with pytest.raises(ClaimError, match="broken: the "):
        build_claim(
            NamedEncoder(member("victim", "victim"), victim),
            ClaimImages(digits.images[:50], digits.images[50:350]),
            [*_panel(5, 0), broken],
        )


def test_images_must_fit(digits: Data, victim: Encoder) -> None:
    with pytest.raises(DataError, match="pixels"):
        build_claim(
            NamedEncoder(member("victim", "victim"), victim),
            ClaimImages(digits.images[:50, :, :12, :12], digits.images[:50]),
            _panel(5, 0),
        )


def test_the_digest_of_images_depends_on_order_and_shape(digits: Data) -> None:
    x = digits.images[:4]
    digests = {images_sha256(x), images_sha256(x.flip(0)), images_sha256(x.reshape(2, 2, 16, 16))}
    assert len(digests) == 3


def test_show_says_what_the_claim_can_find_and_nothing_of_the_key(claim_folder: Path, claim: Claim) -> None:
    text = "\n".join(describe(Claim.load(claim_folder)))
    assert "5 plain, 5 watermarked" in text
    assert "this claim can detect a surrogate" in text
    assert claim.watermark is not None
    assert claim.watermark.key is not None
    assert str(claim.watermark.key.sector_boundaries[0])[:6] not in text


def test_plan_refuses_nonsense() -> None:
    for change in ({"alpha": 0.0}, {"alpha": 0.5}, {"primary": ("cka",)}, {"min_stratum": 2}, {"rule": "x"}):
        with pytest.raises(ClaimError):
            Plan(**change)
    stored = Plan(seed=4).to_dict()
    assert Plan.from_dict(stored) == Plan(seed=4)
    for wrong in ({**stored, "more": 1}, *({k: v for k, v in stored.items() if k != name} for name in stored)):
        with pytest.raises(ClaimError, match="missing or unknown"):
            Plan.from_dict(wrong)


def test_leave_one_out_names_a_member_that_stands_out(claim: Claim) -> None:
    before = leave_one_out_rejections(claim)
    assert "m7" not in before
    assert any(f"{len(before)} of 10 members would be called copies" in line for line in describe(claim))
    high = {
        **claim.panel_scores.members,
        "partial_rsa_relative": {**claim.panel_scores.members["partial_rsa_relative"], "m7": 90.0},
    }
    after = leave_one_out_rejections(replace(claim, scored=replace(claim.panel_scores, members=high)))
    assert "m7" in after


def test_probes_are_in_the_same_order_whenever_a_claim_is_read(claim: Claim, claim_folder: Path) -> None:
    """They are asked in this order, and which are asked twice is drawn by it."""
    orders = {tuple(c.probes) for c in (claim, *(Claim.load(claim_folder) for _ in range(5)))}
    assert orders == {tuple(sorted(claim.probes))}
