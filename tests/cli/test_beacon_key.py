"""A key that follows from a beacon's round: from commitment to report, with a real round of drand."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from support.beacon import NAMED, REPLY, SIGNATURE
from support.command import Run, error_line
from support.encoders import as_suspect, encoder
from support.independent_verifier import Bad, check_key
from support.keys import claimed, rewritten
from torch import Tensor

from ownership.attestation.beacon import BeaconRound
from ownership.auditing.engine import audit
from ownership.claims.claim import Claim
from ownership.errors import ClaimIntegrityError
from ownership.io.canonical import canonical_json
from ownership.keyed.anchoring import save_key
from ownership.keyed.key import Key, new_key
from ownership.keyed.pool import KeyMaterial, load_key, pool_of
from ownership.reports.claim_text import describe
from ownership.reports.html import render_html
from ownership.reports.report import Report
from ownership.verdict.records import TimestampRecord
from watermark_training.data import load_data

POOL = "pool.npz"
TIME = NAMED.time.isoformat()


@pytest.fixture
def pool(tmp_path: Path) -> Tensor:
    x = np.random.default_rng(0).integers(0, 256, (120, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / POOL, x=x)
    return load_data(str(tmp_path / POOL)).images


@pytest.fixture
def waiting(pool: Tensor, tmp_path: Path) -> Key:
    """A key folder `key` as it was before the round, which is signed since."""
    key = new_key(pool_of(pool), probes=100, beacon=NAMED)
    save_key(key, pool, tmp_path / "key")
    return key


class Relay(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path == f"/{NAMED.path}"
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(REPLY if found else b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def relay() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Relay)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_key_waits_for_a_round_that_is_still_to_come(run: Run, pool: Tensor) -> None:
    soon = datetime.now(UTC) + timedelta(days=2)
    code, out, err = run("key", "new", POOL, "--out", "key", "--n-probes", 100, "--beacon-time", soon.isoformat())
    assert code == 0, err
    key = load_key("key")
    assert key.beacon is not None
    assert key.waits
    assert timedelta() <= key.beacon.time - soon < timedelta(seconds=3)
    assert json.loads(Path("key/commitment.json").read_bytes())["beacon"] == key.beacon.named()
    assert {p.name for p in Path("key").iterdir()} == {"key.json", "commitment.json"}
    assert Path("key/key.json").stat().st_mode & 0o077 == 0
    assert f"to be signed at {key.beacon.time.isoformat()}; at every relay: {key.beacon.path}" in out
    assert "publish it before" in err
    code, out, _ = run("key", "show", "key")
    assert code == 0
    assert "not drawn yet" in out
    code, _, err = run("train", "digits[:64]", "--key", "key", "--out", "victim")
    assert code == 2
    assert "does not exist yet: it follows from round" in error_line(err)
    code, _, err = run("key", "anchor", "key", POOL, "--beacon", "http://127.0.0.1:9")
    assert code == 2
    assert "wait until then" in err
    code, _, err = run("key", "new", POOL, "--out", "late", "--beacon-time", "2026-01-01")
    assert code == 2
    assert "signed already" in error_line(err)
    assert not Path("late").exists()


@pytest.mark.parametrize("how", ["file", "network"])
def test_the_round_makes_the_key(run: Run, pool: Tensor, waiting: Key, relay: str, how: str, tmp_path: Path) -> None:
    (tmp_path / "round.json").write_bytes(REPLY)
    given = ("--beacon-reply", "round.json") if how == "file" else ("--beacon", relay + "/")
    code, out, err = run("key", "anchor", "key", POOL, *given)
    assert code == 0, err
    assert f"round 657413 of drand quicknet, signed at {TIME}" in out
    assert "the commitment has no date" in err
    drawn = KeyMaterial.load("key").key
    assert drawn.commitment == waiting.commitment
    parts = (b"turnmark-key-1", drawn.commitment, bytes.fromhex(SIGNATURE), b"probes")
    message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    words = np.frombuffer(hmac.digest(drawn.secret, message, hashlib.sha256), dtype=">u4").astype(np.uint32)
    assert np.array_equal(drawn.probe_indices(), np.random.RandomState(words).permutation(120)[:100])
    assert run("key", "show", "key")[0] == 0
    code, _, err = run("key", "anchor", "key", POOL, *given)
    assert code == 2
    assert "waits for no round" in error_line(err)


def test_a_wrong_reply_changes_nothing(run: Run, waiting: Key, tmp_path: Path) -> None:
    (tmp_path / "round.json").write_bytes(REPLY.replace(b"9cd97b", b"9cd97c"))
    code, _, err = run("key", "anchor", "key", POOL, "--beacon-reply", "round.json")
    assert code == 6
    assert "not the beacon's signature" in error_line(err)
    assert load_key("key") == waiting
    code, _, err = run("key", "anchor", "key", POOL)
    assert code == 2
    assert "give one of" in err


@pytest.fixture
def material(pool: Tensor, waiting: Key) -> KeyMaterial:
    return KeyMaterial.draw(waiting.drawn(NAMED.signed(bytes.fromhex(SIGNATURE))), pool)


@pytest.mark.heavy
def test_claim_verification_and_report_say_what_the_round_shows(
    run: Run, pool: Tensor, material: KeyMaterial, tmp_path: Path
) -> None:
    claimed(encoder(1), material, pool).save(tmp_path / "claim")
    stored = Claim.load(tmp_path / "claim")
    assert any(f"follows from round 657413 of drand quicknet, signed at {TIME}" in line for line in describe(stored))
    report = audit(stored, as_suspect(encoder(1)))
    record = report.claim.key
    assert record is not None
    assert record.beacon is not None
    assert (record.beacon.round, record.beacon.time) == (657_413, TIME)
    assert Report.from_dict(report.to_dict()) == report
    page = render_html(report)
    assert f"The key follows from round 657413 of drand quicknet, whose signature was unknown before {TIME}" in page
    assert "does not show that the commitment was made before that" in page
    assert "It is not excluded that the owner drew keys" in page
    early = TimestampRecord(authority="A", time="2023-09-01T00:00:00+00:00", trusted=True)
    dated = replace(report.claim, key=replace(record, anchor=early))
    page = render_html(replace(report, findings=replace(report.findings, claim=dated)))
    assert "The commitment was stamped before that." in page
    assert run("keygen", "owner.key")[0] == 0
    assert run("claim", "seal", "claim", "--signing-key", "owner.key")[0] == 0
    code, out, err = run("claim", "verify", "claim")
    assert code == 0, err
    assert "its signature is the beacon's; NOT shown here: that the commitment was made before" in out


def test_a_forged_round_is_refused_by_turnmark_and_by_another_verifier(
    pool: Tensor, material: KeyMaterial, tmp_path: Path
) -> None:
    folder = tmp_path / "claim"
    claimed(encoder(1), material, pool).save(folder)
    check_key(folder, json.loads((folder / "claim.json").read_bytes()), None)
    forged = replace(
        material.key, beacon=BeaconRound(chain=NAMED.chain, number=NAMED.number, signature=bytes([0x80]) * 48)
    )
    drawn = KeyMaterial.draw(forged, pool)
    claimed(encoder(1), drawn, pool).save(tmp_path / "forged")
    with pytest.raises(ClaimIntegrityError, match="not the beacon's signature"):
        Claim.load(tmp_path / "forged")
    with pytest.raises((Bad, ValueError)):
        check_key(tmp_path / "forged", json.loads((tmp_path / "forged/claim.json").read_bytes()), None)
    silent = {**material.key.to_dict()}
    del silent["beacon"]  # the commitment is then another one
    rewritten(folder, {"keyed.json": canonical_json(silent)})
    with pytest.raises(ClaimIntegrityError, match="not those that the key draws"):
        Claim.load(folder)
