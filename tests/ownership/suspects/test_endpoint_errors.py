"""What an endpoint says when it does not answer: pauses that it asks for, and the words of its errors."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from email.utils import formatdate

import pytest
import torch
from support.http_server import Handler, Server, serving

from ownership.encoders.images import represent
from ownership.errors import SuspectError
from ownership.suspects.endpoint.client import LONGEST_PAUSE, RemoteEncoder, _seconds


def _rows(images: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(images), 4)


def _images() -> torch.Tensor:
    return torch.zeros(2, 3, 8, 8, dtype=torch.uint8)


def _once(server: Server, misbehaviour: Callable[[Handler], None]) -> None:
    """Misbehave at the first request only."""

    def run(handler: Handler) -> None:
        server.misbehaviour = None
        misbehaviour(handler)

    server.misbehaviour = run


@pytest.mark.parametrize("status", [408, 425, 429, 503, 529])
def test_what_passes_is_tried_again(status: int) -> None:
    with serving(_rows) as (server, url):
        _once(server, lambda h: h.reply(status, b"", Retry_After="0"))
        assert represent(RemoteEncoder(url=url), _images()).shape == (2, 4)
        assert len(server.requests) == 2


def test_a_pause_may_be_a_date() -> None:
    with serving(_rows) as (server, url):
        _once(server, lambda h: h.reply(429, b"", Retry_After=formatdate(time.time() + 2, usegmt=True)))
        start = time.monotonic()
        represent(RemoteEncoder(url=url), _images())
        assert 0.5 < time.monotonic() - start < 10


def test_pauses_are_bounded() -> None:
    assert _seconds("2.5") == 2.5
    assert _seconds("Fri, 31 Dec 1999 23:59:59 GMT") == 0
    for none in ("", "soon", "-1", "\xb2", "Fri, 99 Dec 1999 23:59:59 GMT", "1.2.3", "."):
        assert _seconds(none) is None, none
    far = formatdate(time.time() + 10**6, usegmt=True)
    assert (_seconds(far) or 0) > LONGEST_PAUSE
    with serving(_rows) as (server, url):
        server.misbehaviour = lambda h: h.reply(429, b"", Retry_After=far)
        start = time.monotonic()
        with pytest.raises(SuspectError, match=r"no answer in 2 s \(HTTP 429"):
            represent(RemoteEncoder(url=url, patience=2), _images())
        assert time.monotonic() - start < 2


ERRORS: dict[str, tuple[bytes, str]] = {
    "json": (b'{"error": {"message": "you must provide a model parameter"}}', ": you must provide a model parameter"),
    "text": (b"image must be 224x224\r\nat line 3", ": image must be 224x224"),
    "terminal": (b"\x1b[31mno\x07", r": \x1b[31mno\x07"),
    "long": (b"a" * 10**6, ": " + "a" * 199 + "…"),
    "token": (b'{"error": {"message": "Incorrect key: s3same."}}', ": Incorrect key: …."),
    "address": (b"no route /embed?key=s3cret", ": no route /embed?…"),
    "page": (b"<html><h1>Bad</h1>", ""),
    "nothing": (b"", ""),
}


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_its_words_are_passed_on(name: str) -> None:
    """Escaped and cut, without the token and the secret part of the address, which some endpoints repeat."""
    body, said = ERRORS[name]
    with serving(_rows) as (server, url):
        server.misbehaviour = lambda h: h.reply(400, body)
        with pytest.raises(SuspectError) as e:
            represent(RemoteEncoder(url=url, token="s3same"), _images())
    assert e.value.message == f"the endpoint refused: HTTP 400{said}"


def test_an_error_that_drips_is_still_said() -> None:
    def drip(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 100000\r\n\r\nno ")
        for _ in range(60):
            handler.wfile.write(b"a")
            handler.wfile.flush()
            time.sleep(0.1)

    with serving(_rows) as (server, url):
        server.misbehaviour = drip
        start = time.monotonic()
        with pytest.raises(SuspectError, match="refused: HTTP 401: no a"):
            represent(RemoteEncoder(url=url), _images())
        assert time.monotonic() - start < 5


def test_an_error_with_the_status_of_success_is_passed_on_too() -> None:
    with serving(_rows) as (server, url):
        server.misbehaviour = lambda h: h.reply(200, json.dumps({"error": {"message": "quota of s3same"}}).encode())
        with pytest.raises(SuspectError, match="no JSON with representations: quota of …"):
            represent(RemoteEncoder(url=url, token="s3same"), _images())


def test_an_address_may_be_in_upper_case() -> None:
    with serving(_rows) as (server, url):
        represent(RemoteEncoder(url=url.replace("http://", "HTTP://")), _images())
    assert len(server.requests) == 1
