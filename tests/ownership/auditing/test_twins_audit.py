"""Audits against a claim with twins. H0: the suspect does not depend on which twin was picked. Unit: the pick."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from support import independent_verifier
from support.beacon import NAMED, SIGNATURE
from support.encoders import Noisy, as_suspect, encoder, member
from support.keys import ONE_LOOK, claimed, key_of, rewritten
from support.tsa import Authority, make_authority

from ownership import audit
from ownership.attestation.keys import load_signing_key, make_signing_key
from ownership.attestation.timestamps import load_roots
from ownership.auditing.reproduce import reproduce
from ownership.claims.build import build_claim
from ownership.claims.claim import Claim
from ownership.claims.probes import ClaimImages
from ownership.claims.record import NamedEncoder
from ownership.claims.twins import Twins
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.io.canonical import canonical_json, sha256
from ownership.keyed.anchoring import anchor_request, anchored_with
from ownership.keyed.pool import KeyMaterial
from ownership.reports.claim_text import describe
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.sealing.create import seal_claim
from ownership.sealing.verify import verify_claim
from ownership.verdict.records import AuditOptions
from ownership.verdict.rule import Evidence, Verdict
from watermark_training.data import Data

M = 20
"""Twins of the claim: as many as alpha 0.05 needs."""
PLAN = replace(ONE_LOOK, twins_alpha=0.05)


@pytest.fixture(scope="module")
def material(digits: Data) -> KeyMaterial:
    return key_of(digits.images[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))[:200]])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("twins") / "tsa", "Twin authority")


def named(seed: int) -> NamedEncoder:
    return NamedEncoder(member(f"v{seed}", "twin", encoder(seed)), encoder(seed))


Anchor = Callable[[Twins], Twins]


@pytest.fixture(scope="module")
def anchor(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Anchor:
    place = tmp_path_factory.mktemp("replies")

    def made(twins: Twins) -> Twins:
        (place / "q.tsq").write_bytes(anchor_request(twins.commitment))
        reply = authority.reply(place / "q.tsq", place / "q.tsr").read_bytes()
        return twins.signed(anchored_with(twins.commitment, reply))

    return made


@pytest.fixture(scope="module")
def twins(material: KeyMaterial, anchor: Anchor) -> Twins:
    return anchor(Twins.commit([named(i) for i in range(1, M + 1)], material, {"architecture": "tiny"}))


def seed_of(twins: Twins, index: int) -> int:
    digest = twins.commitment.twins[index].encoder
    return next(i for i in range(1, M + 1) if named(i).record.sha256 == digest)


@pytest.fixture(scope="module")
def victim(twins: Twins) -> int:
    """The seed of the picked twin."""
    return seed_of(twins, twins.picked)


def build(seed: int, material: KeyMaterial, twins: Twins) -> Claim:
    record = replace(named(seed).record, name="victim", kind="victim")
    references = [NamedEncoder(member(f"reference_{i}", "reference"), Noisy(encoder(seed), i, 0.02)) for i in (1, 2)]
    return build_claim(
        NamedEncoder(record, encoder(seed)), ClaimImages(None, material.probes), material=material, twins=twins,
        plan=PLAN, references=references,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(victim: int, material: KeyMaterial, twins: Twins, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("claims") / "claim"
    build(victim, material, twins).save(place)
    return place


@pytest.fixture(scope="module")
def claim(folder: Path, authority: Authority) -> Claim:
    return Claim.load(folder).under(load_roots(authority.roots))


def test_a_copy_of_the_deployed_twin_is_found_although_it_carries_no_mark(claim: Claim, victim: int) -> None:
    report = audit(claim, as_suspect(Noisy(encoder(victim), 40, 0.05)))
    assert (report.verdict, report.decision.evidence) == (Verdict.SUPPORTED, (Evidence.TWINS,))
    assert report.findings.twins is not None
    assert report.findings.twins.pvalue == 1 / M
    assert report.findings.twins.references == {"reference_1": 0, "reference_2": 0}
    assert claim.error_rate == report.findings.error_rate == pytest.approx(0.0501)
    page = render_html(report)
    assert "The test of twins rejects independence: of the 19 twins of the deployed encoder, 0 are as close" in page
    assert any(line.startswith("twins ") and "picked 1 of 20" in line for line in describe(claim))


def test_a_copy_of_another_twin_is_not(claim: Claim, twins: Twins) -> None:
    other = seed_of(twins, (twins.picked + 1) % M)
    assert audit(claim, as_suspect(Noisy(encoder(other), 40, 0.05))).verdict is Verdict.INCONCLUSIVE  # no mark at all


def test_without_roots_the_pick_decides_nothing(folder: Path, victim: int) -> None:
    report = audit(Claim.load(folder), as_suspect(Noisy(encoder(victim), 40, 0.05)))
    assert report.decision.evidence == ()
    assert "it is not excluded that the owner picked" in render_html(report)


def test_preprocessings_share_the_alpha_and_the_audit_is_reproduced(claim: Claim, victim: int) -> None:
    suspect = as_suspect(Noisy(encoder(victim), 40, 0.05), digest="ab" * 32)
    tried = audit(claim, suspect, AuditOptions(preprocessings=("none", "half")))
    assert tried.decision.evidence == ()  # each at 0.025, which 20 twins cannot reach
    report = audit(claim, suspect)
    found = reproduce(report, claim, suspect)
    assert found.differences == ()
    assert [t.title for t in found.tests] == ["Key test", "Twins"]


def test_auditors_encoders_are_ranked(claim: Claim, victim: int) -> None:
    own = [(as_suspect(encoder(900), "own.onnx"), "made here")]
    report = audit(claim, as_suspect(Noisy(encoder(victim), 40, 0.05)), auditor_panel=own)
    assert 0 <= report.findings.auditor_panel[0].values["twins_test"] < M


def test_a_stored_claim_is_the_same_and_verifies(
    folder: Path, claim: Claim, authority: Authority, tmp_path: Path
) -> None:
    assert claim.twins is not None
    make_signing_key(tmp_path / "owner.key")
    sealed = shutil.copytree(folder, tmp_path / "claim")
    seal_claim(sealed, load_signing_key(tmp_path / "owner.key", str))
    lines = [str(c) for c in verify_claim(sealed, roots=load_roots(authority.roots)).checks]
    assert any("anchor picks" in line for line in lines)
    independent_verifier.verify(sealed, None, authority.roots)


def test_only_the_picked_twin_can_be_the_victim(twins: Twins, material: KeyMaterial) -> None:
    other = seed_of(twins, (twins.picked + 1) % M)
    with pytest.raises(ClaimError, match="not the twin that was picked"):
        build(other, material, twins)


def test_twins_that_no_authority_picked_from_are_refused(twins: Twins, material: KeyMaterial, victim: int) -> None:
    with pytest.raises(ClaimError, match="none is picked yet"):
        build(victim, material, twins.signed(replace(twins.commitment, anchor=None)))
    with pytest.raises(ClaimError, match="picks of twins tried"):
        claimed(encoder(victim), material, material.probes, twins=twins, twins_tried=0)


@pytest.mark.parametrize("edit", ["representations", "representations and digest", "anchor", "victim", "removed"])
def test_an_edited_twin_is_refused_at_load(
    folder: Path, twins: Twins, authority: Authority, edit: str, tmp_path: Path
) -> None:
    """The owner redoes every digest of the claim, but the authority's signature is of the commitment."""
    place = shutil.copytree(folder, tmp_path / "claim")
    index = (twins.picked + 1) % M
    name, stored = f"twins/{index}.safetensors", json.loads((place / "twins.json").read_bytes())
    worse = save({"public": torch.zeros_like(load((place / name).read_bytes())["public"])})
    if edit == "representations":
        rewritten(place, {name: worse})
    elif edit == "representations and digest":
        stored["twins"][index]["representations"] = sha256(worse)
        rewritten(place, {name: worse, "twins.json": canonical_json(stored)})
    elif edit == "anchor":
        rewritten(place, {"twins.json": canonical_json({**stored, "anchor": None})})
    elif edit == "victim":
        victim = json.loads((place / "claim.json").read_bytes())["victim"]
        rewritten(place, {}, victim={**victim, "sha256": stored["twins"][index]["encoder"]})
    else:
        (place / name).unlink()
    with pytest.raises((ClaimError, ClaimIntegrityError)):
        Claim.load(place)
    if edit != "removed":
        with pytest.raises(independent_verifier.Bad):
            independent_verifier.check_twins(place, json.loads((place / "claim.json").read_bytes()), authority.roots)


def test_a_round_picks_and_another_stamp_changes_nothing(
    anchor: Anchor, material: KeyMaterial, authority: Authority, tmp_path: Path
) -> None:
    """A stamp after the round shows no order; one before it lets the twins decide."""
    waiting = Twins.commit([named(i) for i in range(1, M + 1)], material, {"architecture": "tiny"}, beacon=NAMED)
    with pytest.raises(ClaimError, match="round 657413 of drand quicknet picks, signed at"):
        _ = waiting.picked
    twins = waiting.signed(waiting.commitment.drawn(NAMED.signed(bytes.fromhex(SIGNATURE))))
    assert {anchor(twins).picked for _ in range(3)} == {twins.picked}
    seed = seed_of(twins, twins.picked)
    undated = build(seed, material, twins)
    assert undated.twins_anchor is None
    assert any("UNTIMESTAMPED" in line for line in describe(undated))
    said = audit(undated, as_suspect(Noisy(encoder(seed), 5, 0.02)))
    assert Evidence.TWINS not in said.decision.evidence
    assert "not timestamped" in render_html(said)
    assert Report.from_dict(json.loads(json.dumps(said.to_dict()))) == said

    place = tmp_path / "claim"
    build(seed, material, anchor(twins)).save(place)
    make_signing_key(tmp_path / "owner.key")
    seal_claim(place, load_signing_key(tmp_path / "owner.key", str))
    lines = [str(c) for c in verify_claim(place, roots=load_roots(authority.roots)).checks]
    assert any("the beacon picks" in line for line in lines)
    assert any("beacon of the twins" in line and "NOT shown here" in line for line in lines)
    independent_verifier.verify(place, None, authority.roots)
    late = Claim.load(place).under(load_roots(authority.roots))
    assert late.twins_anchor is not None
    assert not late.twins_decide
    early = replace(late, twins_anchor=replace(late.twins_anchor, time=NAMED.time - timedelta(hours=1)))
    assert early.twins_decide
    found = audit(early, as_suspect(Noisy(encoder(seed), 5, 0.02)), AuditOptions(published="2026-01-01T00:00:00+00:00"))
    assert Evidence.TWINS in found.decision.evidence
    assert "one pick and no choice. The commitment was stamped before that." in " ".join(render_html(found).split())


def test_another_stamp_makes_another_pick_so_picks_have_to_be_declared(
    twins: Twins, anchor: Anchor, material: KeyMaterial
) -> None:
    """An owner who has one commitment stamped again and again gets any pick: the report asks how many."""
    fresh = twins.signed(replace(twins.commitment, anchor=None))
    picks = {anchor(fresh).picked for _ in range(12)}
    assert len(picks) > 1
    again = anchor(fresh)
    record = build(seed_of(again, again.picked), material, again)
    assert record.twins_tried == 1
    assert replace(record, twins_tried=2, twins_anchor=record.twins_anchor).twins_decide is False
