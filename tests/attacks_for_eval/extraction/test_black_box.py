"""A real server on the loopback address, and a client that trusts nothing it says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import uvicorn

from attacks_for_eval.extraction.black_box import BlackBox, query_all
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from attacks_for_eval.serve import make_app
from ownership import audit
from ownership.claims.claim import Claim
from ownership.encoders.architectures import Encoder
from ownership.encoders.images import represent
from ownership.errors import OwnershipError, SuspectError
from ownership.suspects.endpoint.client import RemoteEncoder
from ownership.suspects.suspect import Suspect
from ownership.verdict.rule import Verdict
from watermark_training.data import Data
from watermark_training.training import Trained


@contextmanager
def serving(victim: BlackBox, **options: object) -> Iterator[str]:
    """The reference endpoint on a free port of this machine."""
    config = uvicorn.Config(make_app(victim, **options), port=0, log_level="error", lifespan="off")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/represent"
    finally:
        server.should_exit = True
        thread.join(10)


def test_the_endpoint_returns_the_encoders_representations(trained: Trained, digits: Data) -> None:
    box = BlackBox(trained.encoder)
    with serving(box, token="secret") as url:
        remote = RemoteEncoder(url=url, token="secret", batch_size=16)
        responses = represent(remote, digits.images[:50])
        torch.testing.assert_close(responses, represent(trained.encoder, digits.images[:50]), atol=1e-5, rtol=1e-5)
        assert box.queries == 50
        for token in (None, "wrong"):
            with pytest.raises(SuspectError, match="HTTP 401") as e:
                represent(RemoteEncoder(url=url, token=token), digits.images[:1])
            assert "token" in e.value.hint
        assert box.queries == 50


def test_an_extraction_from_a_live_endpoint(trained: Trained, digits: Data, tmp_path: Path) -> None:
    """The budget ends the first extraction; its responses are kept and the second one does not query them again."""
    config = ExtractionConfig(arch="tiny", queries=128, epochs=2, batch_size=64)
    store = tmp_path / "responses.sqlite"

    def attacker(url: str) -> BlackBox:
        return BlackBox(RemoteEncoder(url=url), batch_size=64, store=store)

    poor = BlackBox(trained.encoder, budget=64)
    with serving(poor) as url, pytest.raises(SuspectError, match="HTTP 402"):
        extract(attacker(url), digits.images[:300], config)
    rich = BlackBox(trained.encoder)
    with serving(rich) as url:
        extract(attacker(url), digits.images[:300], config)
    assert (poor.queries, rich.queries) == (64, 64)


def test_an_audit_of_a_live_endpoint(claim: Claim, victim: Encoder) -> None:
    """The same numbers as from the encoder itself, and one query a probe, repeats apart."""
    box = BlackBox(victim)
    with serving(box, token="secret") as url:
        remote = RemoteEncoder(url=url, token="secret", batch_size=256)
        far = Suspect(name=url, format="endpoint", sha256="", size=0, architecture=None, encoder=remote)
        report = audit(claim, far)
    near = audit(claim, replace(far, encoder=victim))
    assert report.verdict is near.verdict is Verdict.SUPPORTED
    for x, y in zip(report.results, near.results, strict=True):
        assert x.value == pytest.approx(y.value, abs=1e-3)
    probes = sum(map(len, claim.probes.values()))
    assert probes < box.queries < 1.1 * probes + 8


def test_a_rate_limit_is_waited_for_or_said(trained: Trained, digits: Data) -> None:
    with serving(BlackBox(trained.encoder), per_minute=10) as url:
        represent(RemoteEncoder(url=url), digits.images[:8])
        with pytest.raises(SuspectError, match="no answer in 1 s"):
            represent(RemoteEncoder(url=url, patience=1.0), digits.images[:8])


class _Liar(BaseHTTPRequestHandler):
    """Responses each request with the next of a list of replies; the last repeats."""

    replies: list[Callable[[BaseHTTPRequestHandler], None]]
    served = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        reply = self.replies[min(type(self).served, len(self.replies) - 1)]
        type(self).served += 1
        reply(self)

    def log_message(self, *_: object) -> None:
        return


def _send(status: int, body: bytes, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def _die(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"repr')
    handler.wfile.flush()
    handler.connection.close()


def _stall(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)


@contextmanager
def lying(*replies: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    handler = type("Liar", (_Liar,), {"replies": list(replies), "served": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _json(value: object) -> bytes:
    return json.dumps({"representations": value}).encode()


LIES: dict[str, tuple[Callable[[BaseHTTPRequestHandler], None], str]] = {
    "redirect": (_send(302, b"", Location="http://127.0.0.1:1/"), "HTTP 302"),
    "not found": (_send(404, b""), "HTTP 404"),
    "html": (_send(200, b"<html>"), "no JSON"),
    "no field": (_send(200, b"{}"), "no JSON"),
    "deep nesting": (_send(200, b"[" * 3900), "no JSON"),
    "too few rows": (_send(200, _json([[1.0, 2.0]])), "not 2 rows"),
    "ragged": (_send(200, _json([[1.0], [1.0, 2.0]])), "not 2 rows"),
    "strings": (_send(200, _json([["1"], ["2"]])), "not 2 rows"),
    "booleans": (_send(200, _json([[True], [False]])), "not 2 rows"),
    "empty rows": (_send(200, _json([[], []])), "not 2 rows"),
    "huge": (_send(200, b" " * 5000), "larger than"),
    "always busy": (_send(503, b""), "no answer in"),
    "asks for patience": (_send(429, b"", Retry_After="999"), "no answer in"),
    "dies half-way": (_die, "no answer in"),
    "stalls": (_stall, "did not answer"),
}


@pytest.mark.parametrize("name", sorted(LIES))
def test_a_lying_endpoint_is_one_clear_line(name: str, digits: Data) -> None:
    reply, said = LIES[name]
    with lying(reply) as url:
        remote = RemoteEncoder(url=url, patience=1.2, timeout=0.7, max_bytes=2000)
        with pytest.raises(OwnershipError, match=said) as e:
            represent(remote, digits.images[:2])
        assert e.value.hint


def test_a_short_outage_is_survived(digits: Data) -> None:
    with lying(_send(503, b"", Retry_After="0.1"), _die, _send(200, _json([[1.0, 2.0], [3.0, 4.0]]))) as url:
        remote = RemoteEncoder(url=url, patience=10)
        assert represent(remote, digits.images[:2]).tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert remote.requests == 3


def test_addresses_are_checked() -> None:
    with pytest.raises(SuspectError, match="no HTTP address"):
        RemoteEncoder(url="file:///etc/passwd")


def test_nan_from_an_endpoint_is_refused_by_the_attacker(digits: Data) -> None:
    with (
        lying(_send(200, b'{"representations": [[NaN], [1.0]]}')) as url,
        pytest.raises(OwnershipError, match="not finite"),
    ):
        query_all(BlackBox(RemoteEncoder(url=url)), digits.images[:2])
