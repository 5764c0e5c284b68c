"""Which way requests leave this machine: nothing travels in the clear, and no proxy sees what is meant for here."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.http_server import serving

from ownership.attestation.exchange import exchange
from ownership.encoders.images import represent
from ownership.errors import OwnershipError, SuspectError
from ownership.io.network import proxy_of, route_to
from ownership.suspects.endpoint.client import RemoteEncoder

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUEST_METHOD")


class Capture:
    """A proxy that keeps what reaches it and serves nothing."""

    def __init__(self) -> None:
        self.seen = b""
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:  # closed
                return
            with connection:
                self.seen += connection.recv(4096)
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Capture]:
    capture = Capture()
    thread = threading.Thread(target=capture.serve, daemon=True)
    thread.start()
    monkeypatch.setenv("ALL_PROXY", capture.url)
    yield capture
    capture.listening.shutdown(socket.SHUT_RDWR)
    capture.listening.close()
    thread.join(5)


def _images() -> torch.Tensor:
    return torch.zeros(2, 3, 8, 8, dtype=torch.uint8)


def _rows(images: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(images), 4)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_sees_nothing_of_an_endpoint_on_this_machine(
    variable: str, proxy: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, proxy.url)
    with serving(_rows) as (server, url):
        represent(RemoteEncoder(url=url, token="s3same"), _images())
    assert len(server.requests) == 1
    assert proxy.seen == b""


def test_a_proxy_sees_the_host_of_an_encrypted_endpoint_and_no_more(proxy: Capture) -> None:
    remote = RemoteEncoder(url="https://models.example/embed?key=s3cret", token="s3same")
    with pytest.raises(SuspectError, match="the proxy refused: 403"):
        represent(remote, _images())
    assert proxy.seen.startswith(b"CONNECT models.example:443")
    assert b"s3" not in proxy.seen


def test_plain_http_to_another_machine_is_refused_with_and_without_a_proxy(proxy: Capture) -> None:
    for url in ("http://models.example/", "http://192.168.1.5/", "HTTP://models.example/"):
        with pytest.raises(SuspectError, match="in the clear") as e:
            RemoteEncoder(url=url, token="s3same")
        assert "--allow-http" in e.value.hint
    assert proxy.seen == b""
    meant = RemoteEncoder(url="http://models.example/", token="s3same", allow_http=True)
    with pytest.raises(SuspectError, match="HTTP 403"):
        represent(meant, _images())
    assert b"s3same" in proxy.seen


@pytest.mark.parametrize(
    ("url", "exceptions", "proxied"),
    [
        ("https://models.example/", "", True),
        ("https://models.example/", "other.example", True),
        ("https://models.example/", "*", False),
        ("https://models.example/", ".example", False),
        ("https://models.example:8443/", "models.example:8443", False),
        ("https://8.8.8.8/", "8.0.0.0/8", False),
        ("https://8.8.8.8/", "10.0.0.0/8, fd00::/8", True),
        ("https://[2606:4700::5]/", "localhost,2606:4700::/32", False),
        ("https://[2606:4700::5]/", "[2606:4700::5]", False),
        ("https://[2606:4700::5]/", "2606:4701::/32", True),
        ("https://127.0.0.1/", "", False),
        ("https://[::1]:8000/", "", False),
        ("https://[::ffff:10.0.0.1]/", "", False),
        ("https://localhost./", "", False),
        ("https://10.1.2.3/", "", False),
        ("https://[fd56:9122:70e4:1::5]/", "", False),
        ("https://169.254.1.1/", "", False),
    ],
)
def test_who_is_reached_without_the_proxy(
    url: str, exceptions: str, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", exceptions)
    assert proxy_of(url) == ("http://proxy.example:3128" if proxied else None)
    assert route_to(url).proxy == proxy_of(url)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HTTPS_PROXY", "ftp://user:s3cret@proxy.example", "HTTPS_PROXY is no address of a proxy"),
        ("ALL_PROXY", "http://proxy.example:s3cret", "ALL_PROXY is no address of a proxy"),
        ("SSL_CERT_FILE", "/missing.pem", "SSL_CERT_FILE: /missing.pem holds no certificates"),
        ("SSL_CERT_DIR", "/missing", "SSL_CERT_DIR: /missing holds no certificates"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any image is sent, for endpoints and for timestamp authorities."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SuspectError, match=said) as e:
        RemoteEncoder(url="https://models.example/")
    assert "s3cret" not in e.value.message + e.value.hint
    with pytest.raises(OwnershipError, match=said):
        exchange("https://tsa.example/")


def test_certificates_that_are_none_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    with pytest.raises(SuspectError, match=r"SSL_CERT_FILE: .*empty\.pem holds no certificates"):
        RemoteEncoder(url="https://models.example/")
    with serving(_rows) as (_, url):
        represent(RemoteEncoder(url=url), _images())  # nothing is encrypted, so nothing is read


def test_a_socks_proxy_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy.example:1080")
    with pytest.raises(SuspectError, match="ALL_PROXY names a SOCKS proxy") as e:
        RemoteEncoder(url="https://models.example/")
    assert "socksio" in e.value.hint
