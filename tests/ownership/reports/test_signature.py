"""A generated table of tampering with a signed report: each line is refused, with exit code 6 and its own message.

The independent verifier must agree wherever it looks: it renders no page and derives no number.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from support import independent_verifier
from support.claims import Sealed
from support.encoders import as_suspect, encoder
from support.reports import changed as altered
from support.sampling import examples
from support.strategies import JSON
from support.tampering import INTRUDER, Bench, Change, edited, files_of, flipped
from support.tsa import make_authority

from ownership import audit
from ownership.attestation.dsse import PAYLOAD_TYPE, open_envelope, pre_authentication, sign
from ownership.attestation.keys import public_pem
from ownership.attestation.timestamps import load_roots, parse_date
from ownership.claims.claim import Claim
from ownership.errors import OwnershipError, ReportError, ReportIntegrityError
from ownership.io.canonical import canonical_json, sha256
from ownership.reports.custody import Custody, CustodyItem, Receipt, examined, state
from ownership.reports.html import renderer, write_html
from ownership.reports.report import Report
from ownership.reports.signature import UNSIGNED, read_report, sign_report, signed_report, verify_report
from ownership.sealing.create import attach, write_request
from ownership.suspects.suspect import Suspect
from ownership.verdict.results import PanelCheck

NUMBERS, PAGE, STATEMENT, PUBLIC = "report.json", "report.html", "seal/statement.dsse.json", "seal/auditor.pub"
KEY = Ed25519PrivateKey.generate()
RECEIVED = (
    "claim: from Jane Roe, 2026-05-01",
    "suspect: from the court, 2026-05-02, by John Doe",
    "panel: from Jane Roe, 2026-05-01T09:00:00",
)


def written(claim: Claim, folder: Path, seed: int) -> Path:
    """A report with few tests, so that its page is rendered quickly."""

    def model(name: str, seed: int) -> Suspect:
        return as_suspect(encoder(seed), name, digest=sha256(name.encode()))

    full = audit(claim, model(f"s{seed}.onnx", seed), auditor_panel=[(model("own.onnx", 41), "made here")])
    shown = ("partial_rsa_relative", "cka")
    checked = {m.name: PanelCheck.VERIFIED if m.name in ("m1", "m7") else PanelCheck.NO_FILE for m in claim.members}
    few = altered(
        full,
        results=tuple(r for r in full.results if r.name in shown),
        interim_analyses=full.findings.interim_analyses[:1],
        panel_checked=checked,
    )
    few.save(folder / NUMBERS)
    write_html(few, folder / PAGE)
    return folder


@pytest.fixture(scope="module")
def bench(sealed: Sealed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
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


def public(bench: Bench) -> Path:
    return bench.folder.parent / "auditor.pub"


def message_about(name: str) -> str:
    if name.startswith("seal/timestamps/"):
        return "is not what its name says"
    return {
        NUMBERS: r"it is of another report\.json",
        PAGE: r"it is of another report\.html",
        STATEMENT: r"statement\.dsse\.json",
        PUBLIC: r"auditor\.pub is no public key|auditor\.pub holds more|names the key",
    }[name]


def test_a_signed_report_is_good(bench: Bench) -> None:
    assert bench.judge({}) is None
    assert bench.judge({}, public_key=public(bench)) is None
    whole = {"public_key": public(bench), "roots": bench.sealed.roots, "before": bench.sealed.later}
    found = verify_report(bench.folder, **whole)
    assert found.names == (
        "report", "page", *["custody"] * 5, "signed", "signature", "key", "timestamp", "timestamp", "date",
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


@pytest.mark.sampled
def test_one_flipped_byte(bench: Bench) -> None:
    def cases() -> Iterator[tuple[str, Change, str]]:
        for name, data in bench.files.items():
            step = 1 if name == PUBLIC else 9 if name == STATEMENT else max(1, len(data) // 40)
            for at in range(0, len(data), step):
                yield f"{name}@{at}", {name: flipped(data, at, at % 8)}, message_about(name)

    bench.refuses(cases(), at_least=500)


@pytest.mark.sampled
def test_every_field_of_the_numbers(bench: Bench) -> None:
    def cases() -> Iterator[tuple[str, Change, str]]:
        for name, new in edited(json.loads(bench.files[NUMBERS])):
            yield name, {NUMBERS: canonical_json(new)}, message_about(NUMBERS)

    bench.refuses(cases(), at_least=700)


def test_a_removed_or_cut_file(bench: Bench) -> None:
    def cases() -> Iterator[tuple[str, Change, str]]:
        for name, data in bench.files.items():
            if not name.startswith("seal/timestamps/"):
                missing = "does not exist" if name in (NUMBERS, PAGE) else "is missing"
                yield f"without {name}", {name: None}, missing
                yield f"empty {name}", {name: b""}, "is empty"
            yield f"half {name}", {name: data[: len(data) // 2]}, message_about(name)
            yield f"longer {name}", {name: data + b"\n"}, message_about(name)
        yield "no file of the seal", {n: None for n in bench.files if n.startswith("seal/")}, r"auditor\.pub is missing"

    bench.refuses(cases(), at_least=18)
    extra: Change = {"seal/notes.txt": b"x"}
    bench.refuses(iter([("extra", extra, r"notes\.txt is not covered")]), 1, roots=bench.sealed.roots)


def test_a_seal_that_was_removed(bench: Bench, tmp_path: Path) -> None:
    """The page still shows it; and a verifier who gives a key or a date accepts nothing less."""
    bare = shutil.copytree(bench.folder, tmp_path / "bare")
    shutil.rmtree(bare / "seal")
    with pytest.raises(ReportIntegrityError, match=r"is not what report\.json renders to"):
        verify_report(bare)
    write_html(Report.load(bare / NUMBERS), bare / PAGE)
    assert verify_report(bare).details("signature") == (UNSIGNED,)
    for options in ({"public_key": public(bench)}, {"roots": bench.sealed.roots, "before": bench.sealed.later}):
        with pytest.raises(ReportIntegrityError, match="is not signed"):
            verify_report(bare, **options)  # type: ignore[arg-type]
    with pytest.raises(ReportError, match="is not signed") as e:
        signed_report(bare)
    assert e.value.exit_code == 2


def test_swapped_and_older_files(bench: Bench) -> None:
    def swapped() -> Iterator[tuple[str, Change, str]]:
        for a, b in combinations(bench.files, 2):
            yield f"{a} <-> {b}", {a: bench.files[b], b: bench.files[a]}, r"\S"

    def replayed() -> Iterator[tuple[str, Change, str]]:
        for name, data in bench.older.items():
            if name.startswith("seal/timestamps/"):
                yield name, {name: data}, "does not cover this seal"
            elif data != bench.files[name]:
                yield name, {name: data}, "it is of another report" if name == STATEMENT else message_about(name)
        both: Change = {name: bench.older[name] for name in (NUMBERS, PAGE)}
        yield "both files", both, message_about(NUMBERS)

    bench.refuses(swapped(), at_least=15)
    bench.refuses(replayed(), at_least=5)
    but_times: Change = {name: bench.older[name] for name in (NUMBERS, PAGE, STATEMENT)}
    bench.refuses(iter([("all but the times", but_times, "does not cover this seal")]), 1, roots=bench.sealed.roots)


def _statement(bench: Bench) -> Any:
    return json.loads(open_envelope(bench.files[STATEMENT], KEY.public_key()))


def _signed(content: Any, key: Ed25519PrivateKey) -> Change:
    change: Change = {STATEMENT: sign(canonical_json(content), key), PUBLIC: public_pem(key.public_key())}
    return change


def _no_times(bench: Bench) -> Change:
    """Timestamps cover the old envelope; they go, so that something else is what is found."""
    return {name: None for name in bench.files if name.startswith("seal/timestamps/")}


@pytest.mark.sampled
def test_every_field_of_the_statement(bench: Bench) -> None:
    envelope = json.loads(bench.files[STATEMENT])

    def unsigned() -> Iterator[tuple[str, Change, str]]:
        for name, new in edited(_statement(bench)):
            payload = base64.b64encode(canonical_json(new)).decode()
            yield name, {STATEMENT: canonical_json({**envelope, "payload": payload})}, "the signature is wrong"

    def signed(key: Ed25519PrivateKey) -> Iterator[tuple[str, Change, str]]:
        """SignedStatement anew, and the page left as it was: it does not show what is signed now."""
        message = "is malformed|is no seal of this kind|it is of another report|its chain of custody|is not what"
        for name, new in edited(_statement(bench)):
            yield name, {**_no_times(bench), **_signed(new, key)}, message

    bench.refuses(unsigned(), at_least=100)
    bench.refuses(signed(KEY), 100, roots=bench.sealed.roots)  # an auditor who signs what is not so
    bench.refuses(signed(INTRUDER), 100, roots=bench.sealed.roots)


def test_every_field_of_the_envelope(bench: Bench) -> None:
    content = json.loads(bench.files[STATEMENT])
    (good,) = content["signatures"]
    payload = base64.b64decode(content["payload"])
    bad = {**good, "sig": base64.b64encode(INTRUDER.sign(pre_authentication(PAYLOAD_TYPE, payload))).decode()}

    def cases() -> Iterator[tuple[str, Change, str]]:
        for name, new in edited(content):
            yield name, {STATEMENT: canonical_json(new)}, r"statement\.dsse\.json"
        for name, changed, message in (
            ("stripped", {"signatures": []}, "holds 0 signatures"),
            ("doubled", {"signatures": [good, good]}, "holds 2 signatures"),
            ("one good, one bad", {"signatures": [good, bad]}, "holds 2 signatures"),
            ("the intruder's", {"signatures": [bad]}, "the signature is wrong"),
            ("type swapped", {"payloadType": "application/json"}, "is of type application/json"),
        ):
            yield name, {STATEMENT: canonical_json({**content, **changed})}, message
        yield "written otherwise", {STATEMENT: json.dumps(content).encode()}, "no canonical JSON"

    bench.refuses(cases(), at_least=18)


def test_no_claims_seal_passes_for_a_reports_nor_the_other_way(bench: Bench) -> None:
    """The same key, the same format of signature, another kind of statement."""
    claims = json.loads(open_envelope((bench.sealed.folder / STATEMENT).read_bytes(), bench.sealed.key.public_key()))
    as_claim = {**_statement(bench), "predicateType": claims["predicateType"]}
    cases = [
        ("a claim's", {**_no_times(bench), **_signed(claims, KEY)}, "is no seal of this kind"),
        ("a claim's type", {**_no_times(bench), **_signed(as_claim, KEY)}, "is no seal of this kind"),
    ]
    bench.refuses(iter(cases), 2)
    from ownership.claims.seal import open_statement

    with pytest.raises(OwnershipError, match="is no seal of this kind"):
        open_statement(bench.files[STATEMENT], KEY.public_key())


def test_a_wrong_key_and_wrong_times(bench: Bench, tmp_path: Path) -> None:
    sealed = bench.sealed
    forged = shutil.copytree(bench.folder, tmp_path / "forged")
    shutil.rmtree(forged / "seal")
    write_html(Report.load(forged / NUMBERS), forged / PAGE)
    sign_report(forged, INTRUDER, auditor="Ada Lovelace", received=RECEIVED)
    theirs: Change = {**_no_times(bench), **files_of(forged)}
    assert bench.judge(theirs) is None  # only the auditor's public key, from the auditor, tells
    bench.refuses(iter([("resigned", theirs, "not with the auditor's")]), 1, public_key=public(bench))
    (tmp_path / "other.pub").write_bytes(public_pem(INTRUDER.public_key()))
    bench.refuses(iter([("wrong key", {}, "not with the auditor's")]), 1, public_key=tmp_path / "other.pub")
    bench.refuses(iter([("key swapped", {PUBLIC: public_pem(INTRUDER.public_key())}, "names the key")]), 1)

    (other_data,) = (r for n, r in bench.older.items() if n.endswith(".tsr"))
    (of_claim, _) = (sealed.folder / "seal/timestamps").iterdir()
    for name, reply, message in (
        ("of another report", other_data, "does not cover this seal"),
        ("of a claim", of_claim.read_bytes(), "does not cover this seal"),
        ("rubbish", b"rubbish", "no timestamp reply in strict DER"),
    ):
        change: Change = {f"seal/timestamps/{sha256(reply)}.tsr": reply}
        bench.refuses(iter([(name, change, message)]), 1)
    spec = load_roots(make_authority(tmp_path / "tsa", "First authority").roots)
    for roots in (spec, load_roots(sealed.first.roots)):
        bench.refuses(iter([("untrusted", {}, "no trusted authority")]), 1, roots=roots)
    late = {"roots": sealed.roots, "before": parse_date("2020-01-01")}
    bench.refuses(iter([("after the dispute", {}, r"not shown to be earlier.*first timestamp is of")]), 1, **late)
    in_time = {"roots": sealed.roots, "before": sealed.later}
    bench.refuses(iter([("times removed", _no_times(bench), "there is no timestamp")]), 1, **in_time)


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
        ("panel m0: from A, 2026-05-01", "is no statement"),  # its file was not examined
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


@given(st.data())
@examples(200)
def test_any_value_in_any_field_is_accepted_or_refused_with_one_error(bench: Bench, data: st.DataObject) -> None:
    """Fields of the report, the envelope and the signed statement get other values."""
    numbers, envelope = json.loads(bench.files[NUMBERS]), json.loads(bench.files[STATEMENT])
    statement = _statement(bench)
    places = [numbers, numbers["claim"], numbers["suspect"], numbers["plan"], numbers["results"][0], envelope,
              envelope["signatures"][0], statement, statement["predicate"], statement["predicate"]["custody"][1],
              statement["predicate"]["custody"][1]["received"][0], statement["subject"][0]]  # fmt: skip
    where = data.draw(st.sampled_from(places))
    field, value = data.draw(st.sampled_from(sorted(where))), data.draw(JSON)
    if where[field] == value:
        return
    where[field] = value
    try:
        new = {NUMBERS: canonical_json(numbers)}
        new[STATEMENT] = (
            sign(canonical_json(statement), KEY) if any(where is p for p in places[7:]) else canonical_json(envelope)
        )
    except (ValueError, UnicodeEncodeError):
        return
    change: Change = {**_no_times(bench), **new}
    found = bench.judge(change, roots=bench.sealed.roots)
    assert found is not None
    assert found.exit_code == 6
    with suppress(ReportIntegrityError):  # unsigned: what the numbers do not lead to, or not contradict
        read_report(new[NUMBERS])


@given(st.binary(max_size=300))
@examples(100)
def test_any_bytes_are_refused_with_one_error(bench: Bench, junk: bytes) -> None:
    for name in bench.files:
        if not name.startswith("seal/timestamps/"):
            found = bench.judge({name: junk}, roots=bench.sealed.roots)
            assert found is not None
            assert re.search(message_about(name) + "|is empty", found.message)
    with pytest.raises(ReportIntegrityError):
        read_report(junk)
