"""The golden files are read, verified, and audited again to the numbers they hold (tests/golden/README.md)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support import independent_verifier

from ownership import audit, load_suspect
from ownership.attestation.timestamps import load_roots, parse_date
from ownership.auditing.reproduce import check_claim, reproduce
from ownership.claims.claim import Claim
from ownership.claims.redaction import REDACTABLE
from ownership.claims.storage import FORMAT_VERSION
from ownership.errors import ReportError
from ownership.io.canonical import canonical_json
from ownership.reports.html import render_html
from ownership.reports.report import SCHEMA_VERSION, Report
from ownership.reports.signature import verify_report
from ownership.sealing.disclosure import check_disclosure
from ownership.sealing.verify import verify_claim
from ownership.suspects.suspect import load_encoder

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
MODELS, CLAIM, REPORT = GOLDEN / "models", GOLDEN / "claim", GOLDEN / "report"


def test_they_are_of_the_version_that_is_written() -> None:
    assert json.loads((CLAIM / "claim.json").read_bytes())["format_version"] == FORMAT_VERSION
    assert json.loads((REPORT / "report.json").read_bytes())["schema_version"] == SCHEMA_VERSION


def test_the_report_is_read_and_reproduced() -> None:
    stored = json.loads((REPORT / "report.json").read_bytes())
    assert canonical_json(stored) == (REPORT / "report.json").read_bytes()
    report = Report.load(REPORT / "report.json")
    assert report.verdict.value == stored["verdict"] == "SUPPORTED"
    assert "Ownership report" in render_html(report)
    found = reproduce(
        report,
        Claim.load(CLAIM),
        load_suspect(MODELS / "suspect.onnx"),
        auditor_panel=[(load_encoder(MODELS / "own.onnx"), "made for this")],
        models=[load_encoder(MODELS / f"{name}.onnx") for name in ("victim", "p0", "m1", "reference")],
    )
    assert not found.differences
    assert not found.left_out
    assert found.compared > 100
    f = report.findings
    keys = [k for k in (f.key, *(x.key for x in f.interim_analyses)) if k is not None]
    assert f.twins is not None
    assert len(found.tests) == len(keys) + 1 + len(f.results) + sum(len(x.results) for x in f.interim_analyses)
    found.require()


def test_the_claim_is_written_as_it_was(tmp_path: Path) -> None:
    loaded = Claim.load(CLAIM)
    assert len(loaded.members) == 10
    assert loaded.watermark is not None
    assert loaded.watermark.key is not None
    assert sum(map(len, loaded.probes.values())) > 200
    assert loaded.save(tmp_path / "again").sha256 == loaded.sha256
    for path in (tmp_path / "again").rglob("*.*"):
        assert path.read_bytes() == (CLAIM / path.relative_to(tmp_path / "again")).read_bytes()


def test_what_was_sealed_and_signed_verifies() -> None:
    trusted = {"roots": load_roots(GOLDEN / "roots.pem"), "before": parse_date("2027-01-01")}
    claim = verify_claim(CLAIM, public_key=GOLDEN / "owner.pub", **trusted)
    assert claim.details("date")
    report = verify_report(REPORT, public_key=GOLDEN / "auditor.pub", **trusted)
    assert report.details("date")
    assert any("from the court, 2026-05-02, by John Doe" in line for line in report.details("custody"))
    shown = check_disclosure((GOLDEN / "disclosure.json").read_bytes(), public_key=GOLDEN / "owner.pub", **trusted)
    assert shown.digest == claim.digest
    assert shown.parts.keys() == {"key.json", "private/3"}
    assert shown.parts["key.json"] == (CLAIM / "key.json").read_bytes()
    assert shown.plan == json.loads((CLAIM / "claim.json").read_bytes())["plan"]
    independent_verifier.verify(CLAIM, GOLDEN / "owner.pub", GOLDEN / "roots.pem")
    independent_verifier.verify_report(REPORT, GOLDEN / "auditor.pub", GOLDEN / "roots.pem")


@pytest.fixture
def redacted(tmp_path: Path) -> Path:
    copy = shutil.copytree(CLAIM, tmp_path / "copy")
    for name in REDACTABLE:
        (copy / name).unlink()
    shutil.copy(GOLDEN / "redacted/redacted.json", copy)
    shutil.copy(GOLDEN / "redacted/salts.json", copy / "seal")
    return copy


def test_the_redacted_copy_verifies_and_leads_to_the_same_verdict(redacted: Path) -> None:
    assert verify_claim(redacted, public_key=GOLDEN / "owner.pub").details("redacted")
    independent_verifier.verify(redacted, GOLDEN / "owner.pub", GOLDEN / "roots.pem")
    stored, loaded = Report.load(REPORT / "report.json"), Claim.load(redacted)
    assert loaded.sha256 == stored.claim.sha256
    assert loaded.redaction.parts == REDACTABLE
    again = audit(loaded, load_suspect(MODELS / "suspect.onnx"))
    assert again.verdict is stored.verdict
    assert again.adjusted_pvalues == pytest.approx(stored.adjusted_pvalues, rel=1e-3)
    check_claim(again, loaded)
    with pytest.raises(ReportError, match="this claim is a redacted copy"):
        check_claim(stored, loaded)
    with pytest.raises(ReportError, match="this report is of a redacted claim"):
        check_claim(again, Claim.load(CLAIM))
