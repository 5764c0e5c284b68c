"""What earlier versions wrote is read, verified and audited again to the numbers it holds (tests/golden/README.md)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import independent_verifier

from ownership import audit, load_suspect
from ownership.attestation.timestamps import load_roots, parse_date
from ownership.auditing.reproduce import Reproduction, circumstances, reproduce
from ownership.claims.claim import FORMAT_VERSION, READABLE, Claim
from ownership.io.canonical import canonical_json
from ownership.reports.html import render_html
from ownership.reports.report import SCHEMA_VERSION, Report
from ownership.reports.signature import verify_report
from ownership.sealing.disclosure import check_disclosure, disclosed_data
from ownership.sealing.verify import verify_claim

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
MODELS = GOLDEN / "models"
REPORTS = {
    "report-1-first.json": "claim-1",
    "report-1-auditor.json": "claim-1",
    "report-1-paper.json": "claim-1",
    "report-2-first.json": "claim-2",
    "report-2.json": "claim-2",
    "report-signed/report.json": "claim-2-sealed",
    "report-3.json": "claim-3",
    "report-3-pairs.json": "claim-4",
}


def again(report: Report, claim: str) -> Reproduction:
    own = [(load_suspect(MODELS / "own.onnx"), "made for this")]
    return reproduce(
        report,
        Claim.load(GOLDEN / claim),
        load_suspect(MODELS / "suspect.onnx"),
        how=circumstances(report.command),
        auditor_panel=own if report.auditor_panel else (),
        panel_models=[load_suspect(MODELS / f"{name}.onnx") for name in ("p0", "m1")] if report.panel_checked else None,
    )


def test_every_version_is_there() -> None:
    formats = {json.loads((GOLDEN / c / "claim.json").read_bytes())["format_version"] for c in REPORTS.values()}
    assert formats == set(READABLE)
    assert FORMAT_VERSION in formats
    schemas = {json.loads((GOLDEN / r).read_bytes())["schema_version"] for r in REPORTS}
    assert schemas == set(range(1, SCHEMA_VERSION + 1))


@pytest.mark.parametrize(("name", "claim"), REPORTS.items())
def test_a_report_is_read_and_reproduced(name: str, claim: str) -> None:
    stored = json.loads((GOLDEN / name).read_bytes())
    assert canonical_json(stored) == (GOLDEN / name).read_bytes()
    report = Report.load(GOLDEN / name)
    assert report.verdict.value == stored["verdict"] == "SUPPORTED"
    assert "Ownership report" in render_html(report)
    found = again(report, claim)
    assert not found.differences
    assert not found.left_out
    assert found.compared > 100
    assert len(found.rows) == len(report.results) + sum(len(x.results) for x in report.looks)
    found.require()


@pytest.mark.parametrize("claim", ["claim-1", "claim-2", "claim-2-sealed", "claim-3", "claim-4"])
def test_a_claim_is_written_as_it_was(claim: str, tmp_path: Path) -> None:
    """Loading and saving a claim of today's format gives its bytes; what is older is read, and written as today's."""
    loaded = Claim.load(GOLDEN / claim)
    assert len(loaded.members) == 10
    assert loaded.key is not None
    assert sum(map(len, loaded.probes.values())) > 200
    digest = loaded.save(tmp_path / "again")
    old = json.loads((GOLDEN / claim / "claim.json").read_bytes())["format_version"] < FORMAT_VERSION
    assert (digest == loaded.sha256) is not old
    assert Claim.load(tmp_path / "again").scores == loaded.scores


def test_what_was_sealed_and_signed_verifies() -> None:
    trusted = {"roots": load_roots(GOLDEN / "roots.pem"), "before": parse_date("2027-01-01")}
    claim = list(verify_claim(GOLDEN / "claim-2-sealed", public_key=GOLDEN / "owner.pub", **trusted))
    assert claim[-1].startswith("date ")
    report = list(verify_report(GOLDEN / "report-signed", public_key=GOLDEN / "auditor.pub", **trusted))
    assert report[-1].startswith("date ")
    assert any("from the court, 2026-05-02, by John Doe" in line for line in report)
    shown = (GOLDEN / "disclosure.json").read_bytes()
    list(check_disclosure(shown, public_key=GOLDEN / "owner.pub", **trusted))
    assert disclosed_data(shown)["key.json"] == (GOLDEN / "claim-2-sealed/key.json").read_bytes()
    plan = list(
        check_disclosure((GOLDEN / "disclosure-2.json").read_bytes(), public_key=GOLDEN / "owner.pub", **trusted)
    )
    assert any(line.startswith("plan         sealed") for line in plan)
    independent_verifier.verify(GOLDEN / "claim-2-sealed", GOLDEN / "owner.pub", GOLDEN / "roots.pem")
    independent_verifier.verify_report(GOLDEN / "report-signed", GOLDEN / "auditor.pub", GOLDEN / "roots.pem")


def test_a_view_is_read_and_comes_to_the_same_verdict() -> None:
    stored, view = Report.load(GOLDEN / "report-3.json"), Claim.load(GOLDEN / "view-3")
    assert view.sha256 == stored.claim["sha256"]
    assert view.withheld.parts
    again = audit(view, load_suspect(MODELS / "suspect.onnx"))
    assert again.verdict is stored.verdict
    assert again.adjusted_pvalues == pytest.approx(stored.adjusted_pvalues, rel=1e-3)
