"""What tests of signed reports share: the auditor's key, a report with few tests, names of its files, a bench."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support import independent_verifier
from support.claims import Sealed
from support.encoders import as_suspect, encoder
from support.reports import changed as altered
from support.tampering import Bench, files_of

from ownership import audit
from ownership.attestation.keys import public_pem
from ownership.auditing.claim_checks import encoders_of
from ownership.claims.claim import Claim
from ownership.io.canonical import sha256
from ownership.reports.html import write_html
from ownership.reports.signature import sign_report, signed_report, verify_report
from ownership.sealing.create import attach, write_request
from ownership.suspects.suspect import Suspect
from ownership.verdict.results import ModelCheck

NUMBERS, PAGE, STATEMENT, PUBLIC = "report.json", "report.html", "seal/statement.dsse.json", "seal/auditor.pub"
KEY = Ed25519PrivateKey.generate()
RECEIVED = (
    "claim: from Jane Roe, 2026-05-01",
    "suspect: from the court, 2026-05-02, by John Doe",
    "model: from Jane Roe, 2026-05-01T09:00:00",
)


def written(claim: Claim, folder: Path, seed: int) -> Path:
    """A report with few tests, so that its page is rendered quickly."""

    def model(name: str, seed: int) -> Suspect:
        return as_suspect(encoder(seed), name, digest=sha256(name.encode()))

    full = audit(claim, model(f"s{seed}.onnx", seed), auditor_panel=[(model("own.onnx", 41), "made here")])
    shown = ("partial_rsa_relative", "cka")
    checked = {
        m.name: ModelCheck(sha256=m.sha256, recomputed=m.name in ("m1", "m7", "victim")) for m in encoders_of(claim)
    }
    few = altered(
        full,
        results=tuple(r for r in full.results if r.name in shown),
        interim_analyses=full.findings.interim_analyses[:1],
        models_checked=checked,
    )
    few.save(folder / NUMBERS)
    write_html(few, folder / PAGE)
    return folder


def public(bench: Bench) -> Path:
    return bench.folder.parent / "auditor.pub"


@pytest.fixture(scope="session")
def report_bench(sealed: Sealed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench for tampering with a signed report."""
    place, claim = tmp_path_factory.mktemp("reports"), Claim.load(sealed.folder)
    for name, seed in (("report", 77), ("older", 78)):
        folder = written(claim, place / name, seed)
        sign_report(folder, KEY, auditor="Ada Lovelace", received=RECEIVED)
        write_request(folder, place / "a.tsq", signed_report)
        for authority in (sealed.first, sealed.second) if name == "report" else (sealed.first,):
            reply = authority.reply(place / "a.tsq", place / "a.tsr").read_bytes()
            attach(folder, reply, opened=signed_report)
    (place / "auditor.pub").write_bytes(public_pem(KEY.public_key()))
    (place / "roots.pem").write_bytes(b"".join(a.roots.read_bytes() for a in (sealed.first, sealed.second)))
    made = Bench(
        place / "report",
        files_of(place / "report"),
        files_of(place / "older"),
        sealed,
        verify_report,
        independent_verifier.verify_report,
    )
    yield made
    assert files_of(place / "report") == made.files  # every change was undone
    print(f"\ntamper table of reports: {made.cases} cases")
