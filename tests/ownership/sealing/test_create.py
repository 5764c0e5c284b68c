"""Sealing a claim, and what claim and report say of it; what is broken is in test_verify.py."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.claims import Sealed
from support.encoders import as_suspect, encoder

from ownership.attestation.keys import fingerprint, load_signing_key, make_signing_key
from ownership.attestation.statement import UNTIMESTAMPED
from ownership.auditing.engine import audit
from ownership.claims.claim import Claim
from ownership.errors import ClaimError, ClaimIntegrityError, OwnershipError
from ownership.reports.claim_text import UNSEALED, describe
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.sealing.create import attach, seal_claim, write_request
from ownership.sealing.disclosure import disclose
from ownership.sealing.verify import verify_claim


def test_a_sealed_claim_verifies(sealed: Sealed) -> None:
    found = verify_claim(sealed.folder, public_key=sealed.public, roots=sealed.roots, before=sealed.later)
    assert found.names == (
        "claim", "files", "Merkle root", "signature", "key", "timestamp", "timestamp", "date",
    )  # fmt: skip
    assert all("chains to a root you trust" in detail for detail in found.details("timestamp"))
    seal = Claim.load(sealed.folder).seal
    assert [t.trusted for t in found.timestamps] == [True, True]
    assert seal is not None
    assert (found.digest, found.signer) == (seal.claim_sha256, seal.public_key_sha256)
    assert seal.leaves == 1 + len(sealed.content["parts"]) + 100
    assert {t.authority for t in seal.timestamps} == {"CN=First authority", "CN=Second authority"}
    assert not any(t.trusted for t in seal.timestamps)  # loading knows no roots, and says so
    assert all(t.trusted for t in seal.under(sealed.roots * 2).timestamps)
    assert all(abs(datetime.now(UTC) - t.time) < timedelta(hours=1) for t in seal.timestamps)


def test_what_was_not_checked_is_said(sealed: Sealed) -> None:
    found = verify_claim(sealed.folder)
    assert "NOT compared with the owner's" in found.details("key")[0]
    assert sum("its authority was NOT checked against a root" in line for line in found.details("timestamp")) == 2
    with pytest.raises(OwnershipError, match="needs the roots") as e:
        verify_claim(sealed.folder, before=sealed.later)
    assert e.value.exit_code == 2


def test_sealing_twice(sealed: Sealed, tmp_path: Path) -> None:
    copy = shutil.copytree(sealed.folder, tmp_path / "claim")
    before = {p: p.read_bytes() for p in copy.rglob("*.*")}
    again = seal_claim(copy, sealed.key)
    assert again == Claim.load(sealed.folder).seal
    assert {p: p.read_bytes() for p in copy.rglob("*.*")} == before
    make_signing_key(tmp_path / "other.key")
    with pytest.raises(ClaimError, match="sealed already, with the key") as e:
        seal_claim(copy, load_signing_key(tmp_path / "other.key", str))
    assert e.value.exit_code == 2
    (copy / "key.json").write_bytes(b"{}")
    with pytest.raises(ClaimIntegrityError, match=r"key\.json"):
        seal_claim(copy, sealed.key)


def test_seals_of_one_claim_differ_by_their_salts(claim_folder: Path, sealed: Sealed, tmp_path: Path) -> None:
    copy = shutil.copytree(claim_folder, tmp_path / "claim")
    seal = seal_claim(copy, sealed.key)
    assert (copy / "seal").is_dir()
    first = Claim.load(sealed.folder).seal
    assert first is not None
    assert (seal.claim_sha256, seal.plan_sha256, seal.leaves) == (first.claim_sha256, first.plan_sha256, first.leaves)
    assert seal.root != first.root
    assert len(set(json.loads((copy / "seal/salts.json").read_bytes())["salts"].values())) == seal.leaves


def test_secrets_are_for_the_owner_only(sealed: Sealed) -> None:
    for path in (*sealed.folder.rglob("*.*"), sealed.public.with_suffix("")):
        assert path.stat().st_mode & 0o077 == 0 or path.is_dir(), path


def test_an_unsealed_claim(claim_folder: Path, tmp_path: Path) -> None:
    assert Claim.load(claim_folder).seal is None
    with pytest.raises(ClaimIntegrityError, match="no seal"):
        verify_claim(claim_folder)
    with pytest.raises(ClaimError, match="no seal"):
        write_request(claim_folder, tmp_path / "x.tsq")
    with pytest.raises(ClaimError, match="no seal"):
        disclose(claim_folder, ["key.json"])


@dataclass(frozen=True)
class Said:
    report: Report
    page: str
    terminal: str


def _said(folder: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    from cli import render

    report = audit(Claim.load(folder), as_suspect(encoder(1)))
    render.report(report)
    return Said(report, render_html(report), capsys.readouterr().out)


def test_a_report_says_how_a_claim_is_sealed(
    sealed: Sealed, claim_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = _said(claim_folder, capsys)
    assert bare.report.claim.seal is None
    for text in (bare.page, bare.terminal, "\n".join(describe(Claim.load(claim_folder)))):
        assert UNSEALED in text
        assert UNTIMESTAMPED in text
    unstamped = shutil.copytree(sealed.folder, tmp_path / "claim")
    shutil.rmtree(unstamped / "seal/timestamps")
    full, half = _said(sealed.folder, capsys), _said(unstamped, capsys)
    for text in (half.page, half.terminal, "\n".join(describe(Claim.load(unstamped)))):
        assert "UNSEALED" not in text
        assert UNTIMESTAMPED in text
    for text in (full.page, full.terminal):
        assert "UNTIMESTAMPED" not in text
        assert "its authority was NOT checked against a root" in text
        assert fingerprint(sealed.key.public_key()) in text
    full.report.save(tmp_path / "report.json")
    seal = Report.load(tmp_path / "report.json").claim.seal
    assert seal is not None
    assert seal.root in full.page
    assert full.report.verdict is bare.report.verdict


def test_attach_refuses_what_covers_another_seal(sealed: Sealed, claim_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(claim_folder, tmp_path / "claim")
    seal_claim(copy, sealed.key)
    reply = next((sealed.folder / "seal/timestamps").iterdir()).read_bytes()
    with pytest.raises(ClaimIntegrityError, match="does not cover this seal") as e:
        attach(copy, reply)
    assert e.value.exit_code == 6
    assert not (copy / "seal/timestamps").exists()
