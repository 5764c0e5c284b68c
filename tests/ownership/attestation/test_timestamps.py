"""Timestamps: OpenSSL's judgement, certificates, dates, an authority on the network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from support.claims import Sealed
from support.tsa import Authority, make_authority

from ownership.attestation.timestamps import ask_authority, load_roots, parse_date, read_reply
from ownership.errors import ClaimIntegrityError, OwnershipError
from ownership.sealing.create import stamp, write_request


def test_openssl_agrees_about_timestamps(sealed: Sealed) -> None:
    envelope = sealed.folder / "seal/statement.dsse.json"
    first, second = sorted(
        (sealed.folder / "seal/timestamps").iterdir(), key=lambda p: sealed.first.accepts(p, envelope)
    )
    assert sealed.first.accepts(second, envelope)
    assert sealed.second.accepts(first, envelope)
    assert not sealed.first.accepts(first, envelope)


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
