"""A generated table of tampering with a signed report: each line is refused, with exit code 6 and its own message.

The independent verifier must agree wherever it looks: it renders no page and derives no number.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples
from support.signed_reports import KEY, NUMBERS, PAGE, PUBLIC, RECEIVED, STATEMENT, public
from support.strategies import JSON
from support.tampering import INTRUDER, Bench, Change, edited, files_of, flipped
from support.tsa import make_authority

from ownership.attestation.dsse import PAYLOAD_TYPE, open_envelope, pre_authentication, sign
from ownership.attestation.keys import public_pem
from ownership.attestation.timestamps import load_roots, parse_date
from ownership.errors import OwnershipError, ReportError, ReportIntegrityError
from ownership.io.canonical import canonical_json, sha256
from ownership.reports.html import write_html
from ownership.reports.report import Report
from ownership.reports.signature import UNSIGNED, read_report, sign_report, signed_report, verify_report


@pytest.fixture
def bench(report_bench: Bench) -> Bench:
    return report_bench


def message_about(name: str) -> str:
    if name.startswith("seal/timestamps/"):
        return "is not what its name says"
    return {
        NUMBERS: r"it is of another report\.json",
        PAGE: r"it is of another report\.html",
        STATEMENT: r"statement\.dsse\.json",
        PUBLIC: r"auditor\.pub is no public key|auditor\.pub holds more|names the key",
    }[name]


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
