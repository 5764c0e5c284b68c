"""Signed reports: what verifies, what their statement says, and what cannot be signed."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples
from support.signed_reports import KEY, NUMBERS, PAGE, PUBLIC, RECEIVED, STATEMENT, public
from support.tampering import INTRUDER, Bench, files_of

from ownership.attestation.dsse import PAYLOAD_TYPE, pre_authentication
from ownership.errors import OwnershipError, ReportError, ReportIntegrityError
from ownership.io.canonical import canonical_json
from ownership.reports.custody import Custody, CustodyItem, Receipt, examined, state
from ownership.reports.html import renderer, write_html
from ownership.reports.signature import read_report, sign_report, signed_report, verify_report


@pytest.fixture
def bench(report_bench: Bench) -> Bench:
    return report_bench


def test_a_signed_report_is_good(bench: Bench) -> None:
    assert bench.judge({}) is None
    assert bench.judge({}, public_key=public(bench)) is None
    whole = {"public_key": public(bench), "roots": bench.sealed.roots, "before": bench.sealed.later}
    found = verify_report(bench.folder, **whole)
    assert found.names == (
        "report", "page", *["custody"] * 6, "signed", "signature", "key", "timestamp", "timestamp", "date",
    )  # fmt: skip
    assert found.details("page")[0].startswith("report.html: exactly what")
    found = verify_report(bench.folder)
    assert "NOT compared with the auditor's" in found.details("key")[0]
    assert sum("its authority was NOT checked against a root" in line for line in found.details("timestamp")) == 2
    with pytest.raises(OwnershipError, match="needs the roots") as e:
        verify_report(bench.folder, before=bench.sealed.later)
    assert e.value.exit_code == 2
    for path in bench.folder.rglob("*.*"):
        assert path.stat().st_mode & 0o044 == 0o044, path  # for others to read


def test_openssl_agrees(bench: Bench, tmp_path: Path) -> None:
    """`openssl pkeyutl` about the signature, `openssl ts -verify` about the times."""
    envelope = json.loads(bench.files[STATEMENT])
    (signature,) = envelope["signatures"]
    (tmp_path / "signed").write_bytes(pre_authentication(PAYLOAD_TYPE, base64.b64decode(envelope["payload"])))
    (tmp_path / "sig").write_bytes(base64.b64decode(signature["sig"]))
    verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", bench.folder / PUBLIC, "-rawin"]
    for change, good in ((b"", True), (b" ", False)):
        (tmp_path / "x").write_bytes((tmp_path / "signed").read_bytes() + change)
        done = subprocess.run([*verify, "-in", tmp_path / "x", "-sigfile", tmp_path / "sig"], capture_output=True)
        assert (done.returncode == 0) is good, done.stdout + done.stderr
    for path in (bench.folder / "seal/timestamps").iterdir():
        said = [a.accepts(path, bench.folder / STATEMENT) for a in (bench.sealed.first, bench.sealed.second)]
        assert sorted(said) == [False, True]


def test_a_page_of_its_own(bench: Bench, tmp_path: Path) -> None:
    """An unsigned page must be what the numbers render to, unless another version rendered it."""
    folder = tmp_path / "r"
    folder.mkdir()
    numbers = bench.files[NUMBERS]
    (folder / NUMBERS).write_bytes(numbers)
    write_html(read_report(numbers), folder / PAGE)
    page = (folder / PAGE).read_text()
    assert verify_report(folder).details("page")[0].startswith("report.html: exactly what")
    for changed in (page.replace("NOT SUPPORTED", "SUPPORTED"), page + " ", "<html>" + page):
        assert changed != page
        (folder / PAGE).write_text(changed)
        with pytest.raises(ReportIntegrityError, match=r"is not what report\.json renders to"):
            verify_report(folder)
    assert renderer() in page
    for elsewhere in (page.replace(renderer(), "turnmark 9"), "no page at all"):
        (folder / PAGE).write_text(elsewhere)
        assert "NOT compared, it was rendered by" in verify_report(folder).details("page")[0]


def test_signing_twice_and_signing_what_is_broken(bench: Bench, tmp_path: Path) -> None:
    folder = shutil.copytree(bench.folder, tmp_path / "r")
    before = files_of(folder)
    again, new = sign_report(folder, KEY, auditor="Ada Lovelace", received=RECEIVED)
    assert not new
    assert again == signed_report(bench.folder)
    for key, options in ((INTRUDER, {}), (KEY, {"auditor": "Ada"}), (KEY, {"received": RECEIVED[:1]})):
        with pytest.raises(ReportError, match="signed already") as e:
            sign_report(folder, key, **{"auditor": "Ada Lovelace", "received": RECEIVED, **options})  # type: ignore[arg-type]
        assert e.value.exit_code == 2
    assert files_of(folder) == before
    shutil.rmtree(folder / "seal")
    (folder / NUMBERS).write_bytes(bench.files[NUMBERS].replace(b'"NOT_SUPPORTED"', b'"SUPPORTED"'))
    with pytest.raises(ReportIntegrityError, match="does not follow"):
        sign_report(folder, KEY)
    assert not (folder / "seal").exists()
    with pytest.raises(ReportError, match="is no report"):
        sign_report(tmp_path, KEY)


@pytest.mark.parametrize("what", ["seal", STATEMENT, PUBLIC])
def test_a_link_in_place_of_a_file(bench: Bench, tmp_path: Path, what: str) -> None:
    folder = shutil.copytree(bench.folder, tmp_path / "r")
    (folder / what).rename(tmp_path / "elsewhere")
    (folder / what).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ReportIntegrityError, match="is missing"):
        verify_report(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clam: from A, 2026-05-01", "is no statement about what was examined"),
        ("claim from A, 2026-05-01", "is no statement"),
        ("probes: from A, 2026-05-01", "is no statement"),
        ("claim: from A", "does not state from whom and when"),
        ("claim: from , 2026-05-01", "does not state"),
        ("claim: from A, yesterday", "does not state"),
        ("claim: from A\x1b[31m, 2026-05-01", "does not state"),
        ("claim: from A, 2026-05-01, by ", "does not state"),
        ("claim: from A, 2999-05-01", "which is after the signing"),
        ("model m0: from A, 2026-05-01", "is no statement"),  # its file was not examined
    ],
)
def test_what_cannot_be_stated(bench: Bench, text: str, message: str) -> None:
    report = read_report(bench.files[NUMBERS])
    with pytest.raises(ReportError, match=message) as e:
        state(report, auditor=None, received=[text], signed_at=datetime.now(UTC), public_key_sha256="k")
    assert e.value.exit_code == 2


NAMES = st.text(min_size=1, max_size=20).filter(lambda t: t.isprintable())
DATES = st.dates(max_value=datetime(2026, 1, 1).date()).map(lambda d: d.isoformat())


@given(st.lists(st.builds(Receipt, source=NAMES, on=DATES, by=st.none() | NAMES), max_size=3), st.none() | NAMES)
@examples(100)
def test_custody_comes_back_as_it_was_stated(bench: Bench, way: list[Receipt], auditor: str | None) -> None:
    report, now = read_report(bench.files[NUMBERS]), datetime(2026, 2, 1, tzinfo=UTC) + timedelta(seconds=1)
    plain = [r for r in way if ", by " not in r.source and (r.by is None or ", by " not in r.by)]
    made = state(
        report, auditor=auditor, received=[f"suspect: {r}" for r in plain], signed_at=now, public_key_sha256="k"
    )
    digests = examined(report)
    assert made.items[1] == CustodyItem(what="suspect", sha256=digests["suspect"], received=tuple(plain))
    assert [i.sha256 for i in made.items] == list(digests.values())
    assert Custody.from_dict(json.loads(canonical_json(made.to_dict())), "k") == made
