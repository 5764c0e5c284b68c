"""Audits against a claim with a key and without a panel.

H0: the suspect does not depend on the key. H1: the marked directions are easier to read from it. Unit: the key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.encoders import as_suspect, encoder, member
from support.marked import keyed_claim, marked, material
from torch import Tensor

from ownership.auditing.batch import AuditOutcome, summarize
from ownership.auditing.engine import audit
from ownership.auditing.reproduce import reproduce
from ownership.claims.build import build_claim
from ownership.claims.claim import Claim
from ownership.claims.key_ranks import key_power, key_rank
from ownership.claims.probes import ClaimImages
from ownership.claims.record import NamedEncoder
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.plan import Plan
from ownership.reports.claim_text import describe
from ownership.reports.html import render_html
from ownership.sealing.redacted_copy import write_redacted_copy
from ownership.suspects.suspect import Suspect
from ownership.verdict.records import AuditOptions
from ownership.verdict.rule import Evidence, Verdict
from watermark_training.data import load_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("keyed") / "claim"
    keyed_claim().save(place)
    return place


@pytest.fixture(scope="module")
def stored(folder: Path) -> Claim:
    return Claim.load(folder)


def test_a_copy_is_found_with_no_other_encoder_and_the_strength_is_strong(stored: Claim) -> None:
    report = audit(stored, as_suspect(marked(30, 1.0)))
    assert report.verdict is Verdict.SUPPORTED
    assert report.decision.evidence == (Evidence.KEY,)
    assert report.strength.likelihood_ratio == pytest.approx(0.05 ** (1 / 3) / 1e-4)
    assert report.findings.key is not None
    assert report.findings.key.exceeding == 0
    assert report.results == ()
    page = render_html(report)
    assert "of 99,999 keys drawn anew, 0 do as well" in page
    assert "strong support" in page


@pytest.mark.parametrize("seed", range(30, 36))
def test_encoders_without_the_key_are_not_called_copies(seed: int) -> None:
    report = audit(keyed_claim(), as_suspect(encoder(seed)))
    assert report.verdict is Verdict.NOT_SUPPORTED
    assert report.strength.support is not None


def wrapped(change: Callable[[Tensor], Tensor]) -> Suspect:
    return as_suspect(lambda x: change(marked(30)(x)))


@pytest.mark.parametrize(
    "change",
    [
        lambda z: z @ torch.randn(64, 64, generator=torch.Generator().manual_seed(1)),
        lambda z: z[:, torch.randperm(64, generator=torch.Generator().manual_seed(2))] * 100 - 7,
        lambda z: torch.cat([z, torch.ones(len(z), 9)], 1),
        lambda z: torch.tanh(z @ torch.randn(64, 200, generator=torch.Generator().manual_seed(3)) / 8),
        lambda z: torch.relu(z @ torch.randn(64, 300, generator=torch.Generator().manual_seed(4))),
    ],
    ids=["linear", "permuted", "padded", "tanh", "relu"],
)
def test_transforms_of_the_output_do_not_hide_a_copy(change: Callable[[Tensor], Tensor]) -> None:
    assert audit(keyed_claim(), wrapped(change)).verdict is Verdict.SUPPORTED


def test_logits_are_tested_too() -> None:
    suspect = replace(
        wrapped(lambda z: z @ torch.randn(64, 20, generator=torch.Generator().manual_seed(5))), output_kind="logits"
    )
    report = audit(keyed_claim(), suspect)
    assert report.verdict is Verdict.SUPPORTED
    assert report.decision.evidence == (Evidence.KEY,)


def test_an_audit_ends_early_at_its_share_of_alpha() -> None:
    plan = keyed_claim().plan
    assert plan.interim_queries == (250,)
    report = audit(keyed_claim(), as_suspect(marked(30)), AuditOptions(stop_early=True))
    assert report.verdict is Verdict.SUPPORTED
    assert report.decided_after == 250
    assert report.findings.queries == 250


@pytest.mark.heavy
def test_the_same_files_give_the_same_report_and_reproduce(folder: Path, stored: Claim) -> None:
    claim = stored
    suspect = as_suspect(marked(30, 1.0), digest="ab" * 32)
    report = audit(claim, suspect)
    assert audit(Claim.load(folder), suspect).to_dict() == report.to_dict()
    again = reproduce(report, claim, suspect)
    assert again.differences == ()
    assert [t.title for t in again.tests] == ["Key test", "Key test"]
    other = audit(claim, as_suspect(encoder(31), digest="ab" * 32))
    assert any("key_test" in x for x in reproduce(other, claim, suspect).differences)


def test_several_suspects_share_the_error_rate(stored: Claim) -> None:
    claim = stored
    outcomes = [
        AuditOutcome(name=str(i), report=audit(claim, as_suspect(model)))
        for i, model in enumerate((marked(30), encoder(31), encoder(32)))
    ]
    summary = summarize(claim.sha256, claim.error_rate, outcomes)
    assert [s.supported for s in summary.suspects] == [True, False, False]
    assert summary.suspects[0].pvalue == pytest.approx(1e-5 / keyed_claim().plan.final_share)
    assert (summary.exact, summary.warnings) == (True, ())  # a panel's capacity says nothing about them


def test_a_claim_stores_the_key_and_loads_it(folder: Path) -> None:
    loaded = Claim.load(folder)
    assert loaded.material is not None
    assert loaded.material.key == material().key
    assert (folder / "keyed.json").stat().st_mode & 0o077 == 0
    lines = describe(loaded)
    assert any("UNANCHORED" in line for line in lines)
    assert any("6 probes for each of the victim's 64 dimensions" in line for line in lines)
    assert not any(material().key.secret.hex() in line for line in lines)


@pytest.mark.parametrize("part", ["keyed.json", "pool.sha256", "probes.safetensors"])
def test_a_changed_part_is_refused(folder: Path, tmp_path: Path, part: str) -> None:
    import shutil

    copy = shutil.copytree(folder, tmp_path / "claim")
    data = bytearray((copy / part).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / part).write_bytes(data)
    with pytest.raises(ClaimIntegrityError):
        Claim.load(copy)


def test_a_claim_without_key_and_panel_is_refused() -> None:
    with pytest.raises(ClaimError, match="no key"):
        build_claim(NamedEncoder(member("victim", "victim"), encoder(1)), ClaimImages(None, material().probes))


def test_a_redacted_claim_still_has_its_key(folder: Path, tmp_path: Path) -> None:
    write_redacted_copy(folder, tmp_path / "copy")
    assert audit(Claim.load(tmp_path / "copy"), as_suspect(marked(30))).verdict is Verdict.SUPPORTED


def test_the_rest_of_the_pool_is_for_reference_surrogates() -> None:
    from ownership.claims.probes import split_public

    images = load_data("digits").images
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:600]]
    probes, rest = split_public(images, Plan(), material())
    assert torch.equal(probes, material().probes)
    assert len(rest) == 200
    known = {x.numpy().tobytes() for x in probes}
    assert sum(x.numpy().tobytes() in known for x in rest) == 0
    with pytest.raises(ClaimError):
        split_public(images.flip(0), Plan(), material())


def test_the_probes_of_an_audit_are_the_keys() -> None:
    np.testing.assert_array_equal(keyed_claim().probes["public"].numpy(), material().probes.numpy())


def test_power_is_the_share_of_subsets_of_the_probes_with_which_a_reference_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ownership.claims.key_ranks.POWER_SUBSETS", 2)
    rows = key_power(keyed_claim(), [60, 400])
    assert [(r.reference, r.probes) for r in rows[:3]] == [(f"reference_{i}", 60) for i in range(3)]
    assert {r.subsets for r in rows} == {1, 2}
    whole = [r for r in rows if r.probes == 400]
    level = keyed_claim().plan.key_alpha * keyed_claim().plan.final_share
    for r in whole:
        expected = key_rank(keyed_claim(), keyed_claim().responses[r.reference]).pvalue <= level
        assert r.power == expected
    assert all(r.found <= r.subsets and 0 <= r.interval[0] <= r.power <= r.interval[1] <= 1 for r in rows)
