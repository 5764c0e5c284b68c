"""Sealing: the tree, the signature, timestamps, disclosures; what is broken is in test_verify.py."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import product
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.claims import Sealed
from support.encoders import as_suspect, encoder
from support.sampling import examples
from support.strategies import JSON
from support.tsa import Authority, make_authority, openssl

from ownership.attestation.dsse import open_envelope, pre_authentication, sign
from ownership.attestation.keys import fingerprint, load_public_key, load_signing_key, make_signing_key
from ownership.attestation.merkle import inclusion_path, leads_to, leaf_hash, node_hash, root_hash, salted_leaf
from ownership.attestation.statement import UNTIMESTAMPED
from ownership.attestation.timestamps import ask_authority, load_roots, parse_date, read_reply
from ownership.auditing.engine import audit
from ownership.claims.claim import Claim
from ownership.claims.seal import open_statement
from ownership.encoders.images import image_bytes, images_sha256
from ownership.errors import ClaimError, ClaimIntegrityError, OwnershipError
from ownership.io.canonical import canonical_json, sha256
from ownership.reports.claim_text import UNSEALED, describe
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.sealing.create import attach, seal_claim, stamp, write_request
from ownership.sealing.disclosure import check_disclosure, disclose
from ownership.sealing.verify import verify_claim

RFC_6962 = [b"", b"\0", b"\x10", b" !", b"01", b"@ABC", b"PQRSTUVW", b"`abcdefghijklmno"]
"""The leaves of the test vectors of Certificate Transparency (RFC 6962)."""


@pytest.mark.parametrize(
    ("n", "root"),
    [
        (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (7, "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
        (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ],
)
def test_known_answers_of_rfc_6962(n: int, root: str) -> None:
    assert root_hash([leaf_hash(x) for x in RFC_6962[:n]]).hex() == root


def _naive(leaves: list[bytes]) -> bytes:
    """Level by level: pairs are joined, an odd one out moves up. The same tree, thought of otherwise."""
    while len(leaves) > 1:
        pairs = [node_hash(a, b) for a, b in zip(leaves[::2], leaves[1::2], strict=False)]
        leaves = pairs + leaves[len(leaves) // 2 * 2 :]
    return leaves[0]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=40), st.data())
@examples(150)
def test_paths_lead_to_the_root_and_nothing_else_does(contents: list[bytes], data: st.DataObject) -> None:
    leaves = [leaf_hash(c) for c in contents]
    index, size = data.draw(st.integers(0, len(leaves) - 1)), len(leaves)
    path, root = inclusion_path(leaves, index), root_hash(leaves)
    assert root == _naive(leaves)
    assert leads_to(leaves[index], index, size, path, root)
    assert not leads_to(leaf_hash(leaves[index]), index, size, path, root)
    assert not leads_to(leaves[index], index, size, path, leaf_hash(root))
    assert not leads_to(leaves[index], index, size, [*path, root], root)
    assert not leads_to(leaves[index], size, size, path, root)
    assert not leads_to(leaves[index], -1, size, path, root)
    assert size == 1 or not leads_to(root, 0, size, [], root)  # a node is no leaf
    if path:
        assert not leads_to(leaves[index], index, size, path[:-1], root)
        assert not leads_to(leaves[index], index, size, [*path[:-1], leaf_hash(path[-1])], root)


@given(
    st.binary(max_size=9), st.integers(-(2**80), 2**80), st.integers(-(2**80), 2**80), st.lists(st.binary(), max_size=9)
)
def test_no_stated_index_or_size_is_too_large(leaf: bytes, index: int, size: int, path: list[bytes]) -> None:
    assert leads_to(leaf, index, size, path, b"") in (True, False)


def test_a_salted_leaf_is_what_the_format_says() -> None:
    salt, digest = bytes(range(32)), hashlib.sha256(b"data").digest()
    assert salted_leaf(salt, "é", digest) == hashlib.sha256(b"\0" + salt + b"\0\0\0\2" + "é".encode() + digest).digest()


def test_pre_authentication_is_dsses_example() -> None:
    """The example of the DSSE protocol document."""
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == expected


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


def test_openssl_agrees_about_timestamps(sealed: Sealed) -> None:
    envelope = sealed.folder / "seal/statement.dsse.json"
    first, second = sorted(
        (sealed.folder / "seal/timestamps").iterdir(), key=lambda p: sealed.first.accepts(p, envelope)
    )
    assert sealed.first.accepts(second, envelope)
    assert sealed.second.accepts(first, envelope)
    assert not sealed.first.accepts(first, envelope)


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


def test_signing_keys(tmp_path: Path) -> None:
    digest = make_signing_key(tmp_path / "k", "Geheim ✓")
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in (tmp_path / "k").read_bytes()
    key = load_signing_key(tmp_path / "k", lambda: "Geheim ✓")
    assert fingerprint(key.public_key()) == digest
    assert fingerprint(load_public_key((tmp_path / "k.pub").read_bytes(), OwnershipError, "key")) == digest
    for wrong in ("", "geheim"):
        with pytest.raises(OwnershipError, match="cannot be decrypted") as e:
            load_signing_key(tmp_path / "k", lambda wrong=wrong: wrong)  # type: ignore[misc]
        assert e.value.exit_code == 2
    with pytest.raises(OwnershipError, match="exists already"):
        make_signing_key(tmp_path / "k")
    for name in ("k.pub", "rubbish", "nowhere"):
        (tmp_path / "rubbish").write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        with pytest.raises(OwnershipError, match="signing key"):
            load_signing_key(tmp_path / name, str)


def test_keys_of_openssl_serve(tmp_path: Path, sealed: Sealed) -> None:
    openssl(tmp_path, "genpkey", "-algorithm", "ed25519", "-out", "plain")
    openssl(tmp_path, "pkcs8", "-topk8", "-scrypt", "-in", "plain", "-out", "hard", "-passout", "pass:x")
    openssl(tmp_path, "pkey", "-in", "plain", "-pubout", "-out", "pub")
    public = load_public_key((tmp_path / "pub").read_bytes(), OwnershipError, "key")
    for name in ("plain", "hard"):
        assert load_signing_key(tmp_path / name, lambda: "x").public_key() == public


def test_keys_of_other_algorithms_are_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = generate_private_key(SECP256R1())
    (tmp_path / "ec").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(OwnershipError, match="no Ed25519 key"):
        load_signing_key(tmp_path / "ec", str)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(OwnershipError, match="another algorithm"):
        load_public_key(pem, OwnershipError, "key")


# timestamps


def test_a_chain_in_the_wrong_order_is_explained(sealed: Sealed, tmp_path: Path) -> None:
    """OpenSSL 3.0 does not sort the certificates of a reply; a strict reader refuses that, and must say why."""
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import load_pem_x509_certificate

    write_request(sealed.folder, tmp_path / "a.tsq")
    data = sealed.folder / "seal/statement.dsse.json"
    made = sealed.first.reply(tmp_path / "a.tsq", tmp_path / "a.tsr", chain=True).read_bytes()
    files = [sealed.first.folder / name for name in ("tsa.pem", "root.pem")]
    ders = sorted(load_pem_x509_certificate(f.read_bytes()).public_bytes(Encoding.DER) for f in files)
    (either,) = (x for x in (ders[0] + ders[1], ders[1] + ders[0]) if x in made)
    for order in (ders, ders[::-1]):
        (tmp_path / "b.tsr").write_bytes(made.replace(either, b"".join(order)))
        assert sealed.first.accepts(tmp_path / "b.tsr", data)
    sorted_reply = made.replace(either, ders[0] + ders[1])
    assert read_reply(sorted_reply, data.read_bytes(), load_roots(sealed.first.roots)).trusted
    with pytest.raises(ClaimIntegrityError, match="strict DER") as e:
        read_reply(made.replace(either, ders[1] + ders[0]), data.read_bytes())
    assert "openssl ts -verify" in e.value.hint


def test_a_certificate_that_may_not_stamp_is_refused(sealed: Sealed, tmp_path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    authority = make_authority(tmp_path / "tsa", "Stamps no more")
    root = x509.load_pem_x509_certificate((authority.folder / "root.pem").read_bytes())
    key = load_pem_private_key((authority.folder / "root.key").read_bytes(), None)
    good = x509.load_pem_x509_certificate((authority.folder / "tsa.pem").read_bytes())
    bad = (
        x509.CertificateBuilder(good.issuer, good.subject, good.public_key(), good.serial_number)
        .not_valid_before(datetime(2001, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2001, 2, 1, tzinfo=UTC))
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
        .sign(key, hashes.SHA256())  # type: ignore[arg-type]
    )
    from cryptography.hazmat.primitives.serialization import Encoding

    (authority.folder / "tsa.pem").write_bytes(bad.public_bytes(Encoding.PEM))
    write_request(sealed.folder, tmp_path / "a.tsq")
    reply = authority.reply(tmp_path / "a.tsq", tmp_path / "a.tsr").read_bytes()
    envelope = (sealed.folder / "seal/statement.dsse.json").read_bytes()
    with pytest.raises(ClaimIntegrityError, match="no trusted authority"):  # it had expired when it stamped
        read_reply(reply, envelope, [root])


def test_dates() -> None:
    assert parse_date("2026-05-01T12:00:00+02:00") == datetime(2026, 5, 1, 10, tzinfo=UTC)
    for text in ("yesterday", "2026-13-01", ""):
        with pytest.raises(OwnershipError, match="no date"):
            parse_date(text)


def test_roots_must_be_certificates(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(OwnershipError, match="holds no certificates"):
        load_roots(tmp_path / "x.pem")


def test_damaged_keys_and_roots_end_in_one_error(sealed: Sealed, tmp_path: Path) -> None:
    """Every byte of the DER of a root and of a public key, changed."""
    for path, read in (
        (sealed.first.roots, load_roots),
        (sealed.public, lambda p: load_public_key(p.read_bytes(), OwnershipError, "key")),
    ):
        first, *middle, last = path.read_text().splitlines()
        der = base64.b64decode("".join(middle))
        for at, value in product(range(len(der)), (0, 0x7F)):
            changed = base64.encodebytes(der[:at] + bytes([value]) + der[at + 1 :]).decode()
            (tmp_path / "x.pem").write_text(f"{first}\n{changed}{last}\n")
            with suppress(OwnershipError):
                read(tmp_path / "x.pem")


@contextmanager
def serving(authority: Authority, how: str) -> Iterator[str]:
    """An authority behind HTTP on this machine; `how` says what it does wrong."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/timestamp-query"
            place = authority.folder / "served.tsq"
            if how != "replay" or not place.exists():
                place.write_bytes(query)
            reply = authority.reply(place, authority.folder / "served.tsr").read_bytes()
            status = {"redirect": 302, "refuse": 500}.get(how, 200)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(reply if how != "flood" else bytes(2**20))

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/tsr"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_authority_on_the_network(sealed: Sealed, tmp_path: Path) -> None:
    copy = shutil.copytree(sealed.folder, tmp_path / "claim")
    shutil.rmtree(copy / "seal/timestamps")
    roots = load_roots(sealed.first.roots)
    with serving(sealed.first, "well") as url:
        assert stamp(copy, url, roots).trusted
    with serving(sealed.first, "replay") as url, pytest.raises(ClaimIntegrityError, match="nonce"):
        stamp(copy, url, roots)  # an old answer to the same seal, from before
    assert len(list((copy / "seal/timestamps").iterdir())) == 1
    for how, match in (("redirect", "HTTP 302"), ("refuse", "HTTP 500"), ("flood", "larger than 65536 bytes")):
        with serving(sealed.first, how) as url, pytest.raises(OwnershipError, match=match):
            stamp(copy, url, roots)
    with pytest.raises(OwnershipError, match="cannot be reached"):
        stamp(copy, "http://127.0.0.1:9/", roots)
    for url in ("file:///etc/passwd", "http://[", "gopher://x"):
        with pytest.raises(OwnershipError):
            ask_authority(url, b"x")


# disclosures


def test_a_disclosure_shows_parts_and_nothing_else(sealed: Sealed, claim: Claim) -> None:
    names = ["key.json", "private/7", "representations/m1.safetensors"]
    made = disclose(sealed.folder, names, data=True)
    found = check_disclosure(made, public_key=sealed.public, roots=sealed.roots, before=sealed.later)
    assert found.names == (
        "claim", "signature", "key", "timestamp", "timestamp", "date", "part", "part", "part",
    )  # fmt: skip
    data = found.parts
    assert list(data) == names
    assert found.plan is None
    assert found.digest == Claim.load(sealed.folder).sha256
    assert data["key.json"] == (sealed.folder / "key.json").read_bytes()
    assert data["private/7"] == image_bytes(claim.probes["private"][7])
    assert sha256(data["private/7"]) == images_sha256(claim.probes["private"][7])
    salts = json.loads((sealed.folder / "seal/salts.json").read_bytes())["salts"]
    shown = {name for name, salt in salts.items() if salt.encode() in made}
    assert shown == set(names)
    assert (sealed.folder / "key.json").read_bytes() not in disclose(sealed.folder, names)
    assert check_disclosure(disclose(sealed.folder, names)).parts == dict.fromkeys(names)


def test_the_plan_is_disclosed_alone(sealed: Sealed, claim: Claim) -> None:
    """This was the plan: its digest is in what was signed, so nothing else of the claim is shown with it."""
    made = disclose(sealed.folder, ["plan"])
    content = json.loads(made)
    assert content["plan"] == claim.plan.to_dict()
    assert content["parts"] == []
    found = check_disclosure(made, public_key=sealed.public, roots=sealed.roots, before=sealed.later)
    (detail,) = found.details("plan")
    assert '"alpha": 0.01' in detail
    assert found.plan == content["plan"]
    for wrong in (
        {**content, "plan": {**content["plan"], "alpha": 0.05}},
        {**content, "plan": None},
        {**content, "format_version": 2},
        {k: v for k, v in content.items() if k != "plan"},
        {**content, "more": 1},
    ):
        with pytest.raises(ClaimIntegrityError):
            check_disclosure(canonical_json(wrong))
    both = disclose(sealed.folder, ["private/7", "plan"], data=True)
    shown = check_disclosure(both)
    assert shown.plan == content["plan"]
    assert set(shown.parts) == {"private/7"}
    assert shown.parts["private/7"] is not None


def test_every_part_can_be_disclosed(sealed: Sealed) -> None:
    names = ["claim.json", *sealed.content["parts"], *(f"private/{i}" for i in range(100))]
    assert check_disclosure(disclose(sealed.folder, names)).names.count("part") == len(names)
    with pytest.raises(ClaimError, match="no part 'private/100'"):
        disclose(sealed.folder, ["private/100"])


@given(st.binary(max_size=300))
@examples(200)
def test_any_bytes_are_accepted_or_refused_with_one_error(sealed: Sealed, junk: bytes) -> None:
    key = sealed.key.public_key()
    for read in (
        lambda: open_envelope(junk, key),
        lambda: open_statement(sign(junk, sealed.key), key),
        lambda: check_disclosure(junk),
        lambda: read_reply(junk, b"x", sealed.roots),
        lambda: load_public_key(junk, OwnershipError, "key"),
    ):
        with pytest.raises(OwnershipError):
            read()


@given(st.data())
@examples(300)
def test_any_value_in_any_field_is_accepted_or_refused_with_one_error(sealed: Sealed, data: st.DataObject) -> None:
    """Fields of disclosure, envelope and signed statement get other values; written as canonically as they allow."""
    made = json.loads(sealed.disclosure)
    envelope = json.loads(made["statement"])
    statement = json.loads(open_envelope(made["statement"].encode(), sealed.key.public_key()))
    where = data.draw(st.sampled_from([made, made["parts"][0], envelope, envelope["signatures"][0], statement,
                                       statement["predicate"], statement["subject"][0]]))  # fmt: skip
    field, value = data.draw(st.sampled_from(sorted(where))), data.draw(JSON)
    where[field] = value

    def written(x: object) -> bytes:
        return (json.dumps(x, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode(errors="replace")

    for read in (
        lambda: check_disclosure(written(made)),
        lambda: open_envelope(written(envelope), sealed.key.public_key()),
        lambda: open_statement(sign(written(statement), sealed.key), sealed.key.public_key()),
    ):
        try:
            read()
        except OwnershipError:
            continue


# what reports say


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
