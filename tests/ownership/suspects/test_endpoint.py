"""Audits of live endpoints on the loopback address, and endpoints that misbehave."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.encoders import Noisy, encoder
from support.http_server import Handler, serving

from ownership import audit
from ownership.auditing.session import queries
from ownership.claims.claim import Claim
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import represent
from ownership.errors import SuspectError
from ownership.evidence.querying import ProblemCode
from ownership.io.canonical import canonical_json
from ownership.reports.report import Report
from ownership.suspects.endpoint.client import RemoteEncoder
from ownership.suspects.endpoint.endpoint import load_endpoint
from ownership.suspects.endpoint.protocols import APIS
from ownership.suspects.endpoint.transcript import CachedEndpoint, Transcript
from ownership.verdict.records import AuditOptions
from ownership.verdict.rule import Verdict
from watermark_training.data import Data


@pytest.fixture
def images(digits: Data) -> torch.Tensor:
    return digits.images


@pytest.mark.parametrize("api", sorted(APIS))
def test_an_audit_in_every_language(api: str, claim: Claim, near: Noisy, direct: Report, tmp_path: Path) -> None:
    """The statistics of the encoder itself; the report names the host, and of the address nothing more."""
    with serving(near) as (server, url):
        report = audit(claim, load_endpoint(url, tmp_path / "t", token="s3same", api=api, model="resnet"))
    assert report.verdict is direct.verdict is Verdict.SUPPORTED
    for x, y in zip(report.results, direct.results, strict=True):
        assert (x.name, x.value) == (y.name, pytest.approx(y.value, rel=1e-4, abs=1e-4))
    assert server.images == report.findings.queries == direct.findings.queries == queries(claim)[0]
    headers, body = server.requests[0]
    assert headers["Authorization"] == "Bearer s3same"
    assert body.get("model") == (None if api == "turnmark" else "resnet")
    kept = Transcript(tmp_path / "t", RemoteEncoder(url=url, api=api, model="resnet"))
    port = server.server_address[1]
    said = report.suspect
    assert (said.format, said.host, said.api) == ("endpoint", f"127.0.0.1:{port}", api)
    assert (said.sha256, said.size_bytes, len(kept)) == (kept.sha256, kept.size, server.images)
    everything = json.dumps(report.to_dict()) + "".join(p.read_bytes().decode("latin-1") for p in kept.folder.iterdir())
    assert "s3cret" not in everything
    assert "s3same" not in everything
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))).to_dict() == report.to_dict()


def test_a_finished_audit_is_repeated_from_its_transcript(claim: Claim, near: Noisy, tmp_path: Path) -> None:
    """Without the endpoint, to the same bytes."""
    with serving(near) as (server, url):
        first = audit(claim, load_endpoint(url, tmp_path / "t"))
        session = server.images
        again = audit(claim, load_endpoint(url, tmp_path / "t"))
        assert server.images == session
    gone = audit(claim, load_endpoint(url, tmp_path / "t"))
    assert canonical_json(gone.to_dict()) == canonical_json(again.to_dict()) == canonical_json(first.to_dict())


def test_an_interrupted_audit_goes_on_and_pays_nothing_twice(
    claim: Claim, near: Noisy, direct: Report, tmp_path: Path
) -> None:
    """Cut off three times, once within the repeat check: the endpoint answers each question once."""
    folder = tmp_path / "t"
    with serving(near) as (server, url):
        server.misbehaviour = lambda h: h.reply(402, b"")
        spent = 0
        for good in (3, 5, 10_000):
            server.requests.clear()
            server.good = good
            before = server.images
            if good < 1000:
                with pytest.raises(SuspectError, match="HTTP 402") as e:
                    audit(claim, load_endpoint(url, folder))
                assert f"{server.images} answers are kept" in e.value.hint
                assert server.images > before
            else:
                report = audit(claim, load_endpoint(url, folder))
            spent = server.images
        assert spent == direct.findings.queries
        assert report.verdict is direct.verdict
        # one that is cut off at the repeats: they are questions of their own, and really asked
        server.requests.clear()
        server.images, probes = 0, sum(map(len, claim.probes.values()))
        other = tmp_path / "other"
        server.good = (
            sum(-(-min(256, len(s) - i) // 64) for s in claim.probes.values() for i in range(0, len(s), 256)) + 2
        )
        with pytest.raises(SuspectError, match="HTTP 402"):
            audit(claim, load_endpoint(url, other))
        assert probes < server.images < direct.findings.queries
        server.good = 10_000
        assert audit(claim, load_endpoint(url, other)).verdict is direct.verdict
        assert server.images == direct.findings.queries


def test_an_endpoint_that_answers_at_random_is_noticed_through_a_transcript(claim: Claim, tmp_path: Path) -> None:
    """The repeat check is not answered out of the transcript."""
    base = encoder(1)

    def moody(images: torch.Tensor) -> torch.Tensor:
        return base(images) + 0.05 * torch.randn(len(images), 64)

    with serving(moody) as (_, url):
        report = audit(claim, load_endpoint(url, tmp_path / "t"))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert [p.code for p in report.findings.problems] == [ProblemCode.UNSTABLE]


def test_early_looks_keep_their_answers_too(claim: Claim, victim: Encoder, tmp_path: Path) -> None:
    with serving(victim) as (server, url):
        early = audit(claim, load_endpoint(url, tmp_path / "t"), AuditOptions(stop_early=True))
        assert early.verdict is Verdict.SUPPORTED
        assert server.images == early.findings.queries < queries(claim)[0]
        whole = audit(claim, load_endpoint(url, tmp_path / "t"))
        assert whole.verdict is Verdict.SUPPORTED
        assert server.images <= queries(claim)[0] + early.findings.queries * 0.1


def _drip(body: bool) -> Callable[[Handler], None]:
    """A byte now and then, for ever: no pause is long enough for a socket's timeout."""

    def run(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 100000\r\n\r\n" if body else b"X-Slow: "))
        for _ in range(60):
            handler.wfile.write(b"a")
            handler.wfile.flush()
            time.sleep(0.1)

    return run


def _endless(handler: Handler) -> None:
    """Ten gigabytes, if one lets it."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(10**10))
    handler.end_headers()
    for _ in range(10**10 // 2**20):
        handler.wfile.write(b" " * 2**20)


def _other_dim(handler: Handler) -> None:
    n = len(handler.server.requests[-1][1]["images"])
    handler.reply(200, json.dumps({"representations": [[1.0, 2.0]] * n}).encode())


def _hang_up(handler: Handler) -> None:
    handler.connection.close()


LIES: dict[str, tuple[Callable[[Handler], None], str]] = {
    "redirect": (lambda h: h.reply(302, b"", Location="http://127.0.0.1:1/"), "HTTP 302"),
    "unauthorised": (lambda h: h.reply(401, b"\x1b[31mno"), "HTTP 401"),
    "busy for ever": (lambda h: h.reply(429, b"", Retry_After="0.2"), "no answer in 1.5 s .HTTP 429|took more than"),
    "asks for an odd pause": (lambda h: h.reply(429, b"", Retry_After="\xb2"), "no answer in"),
    "ten gigabytes": (_endless, "larger than"),
    "slow body": (_drip(body=True), "took more than 1.5 s"),
    "slow headers": (_drip(body=False), "took more than 1.5 s"),
    "nested": (lambda h: h.reply(200, b"[" * 100_000), "no JSON with representations"),
    "compressed": (lambda h: h.reply(200, b"x", Content_Encoding="gzip"), "compresses"),
    "other length": (_other_dim, "changes the length of its representations, from 64 to 2"),
    "hangs up": (_hang_up, "no answer in|took more than"),
}


@pytest.mark.parametrize("name", sorted(LIES))
def test_an_endpoint_that_fails_midway(name: str, claim: Claim, near: Noisy, tmp_path: Path) -> None:
    """One line and a hint; what was answered is kept, and the next attempt goes on from there."""
    few = replace(claim, probes={**claim.probes, "public": claim.probes["public"][:100]})
    with serving(near) as (server, url):
        server.misbehaviour, said = LIES[name]
        server.good = 1
        remote = RemoteEncoder(url=url, patience=1.5, timeout=1.0)
        suspect = load_endpoint(url, tmp_path / "t")
        patient = CachedEndpoint(remote, Transcript(tmp_path / "t", remote))
        start = time.monotonic()
        with pytest.raises(SuspectError, match=said) as e:
            audit(few, replace(suspect, encoder=patient))
        assert time.monotonic() - start < 60
        assert "64 answers are kept in" in e.value.hint
        assert "\n" not in e.value.message + e.value.hint
        assert "\x1b" not in e.value.message
        assert len(Transcript(tmp_path / "t", RemoteEncoder(url=url))) == 64


def test_no_secure_connection_is_said_at_once(images: torch.Tensor) -> None:
    with serving(encoder(1)) as (_, url):
        start = time.monotonic()
        with pytest.raises(SuspectError, match="no secure connection"):
            represent(RemoteEncoder(url=url.replace("http://", "https://")), images[:2])
        assert time.monotonic() - start < 10


def test_an_answer_may_be_no_longer_than_its_rows(images: torch.Tensor) -> None:
    """Once the length of a row is known, padding does not pass."""
    with serving(encoder(1)) as (server, url):
        server.misbehaviour, server.good = (lambda h: h.reply(200, b" " * 20_000)), 1
        remote = RemoteEncoder(url=url)
        represent(remote, images[:2])
        with pytest.raises(SuspectError, match="larger than 10240 bytes"):
            represent(remote, images[:2])


def test_nan_in_json_is_inconclusive(claim: Claim, tmp_path: Path) -> None:
    def nan(handler: Handler) -> None:
        n = len(handler.server.requests[-1][1]["images"])
        handler.reply(200, ('{"representations": [' + ", ".join(["[NaN" + ", 1.0" * 63 + "]"] * n) + "]}").encode())

    with serving(encoder(1)) as (server, url):
        server.misbehaviour, server.good = nan, 5
        report = audit(claim, load_endpoint(url, tmp_path / "t"))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert [p.code for p in report.findings.problems] == [ProblemCode.NOT_FINITE]
