"""HTTP client of an endpoint: send images as PNG in JSON, receive representations (`endpoint.protocols`).

Replies are untrusted: redirects are not followed, compressed replies are refused, bytes and time are limited, and all
representations must have one dimension. The token comes from the caller or the environment, never from the command
line.
"""

from __future__ import annotations

import base64
import json
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import torch
from torch import Tensor

from ownership.encoders.images import as_uint8, png_bytes
from ownership.errors import SuspectError
from ownership.io.canonical import sha256
from ownership.io.extras import require
from ownership.io.network import Route, route_to
from ownership.io.text import printable
from ownership.suspects.endpoint.address import host_of
from ownership.suspects.endpoint.protocols import APIS, error_text, read_answer, stated_error

if TYPE_CHECKING:
    import httpx

RETRIED = {408, 425, 429, 500, 502, 503, 504, 529}

LONGEST_PAUSE = 60.0
"""Most seconds between two attempts, whatever the endpoint asks for."""

ERROR_BYTES = 4096
"""What is read of the body of an error."""

ERROR_SECONDS = 2.0
"""Time that the body of an error may take; its status is said anyway."""

HINTS = {
    401: "set the token",
    403: "set the token",
    402: "the budget is spent",
    407: "check the proxy's address, name and password",
    413: "send fewer images a request",
}


class Exchange(NamedTuple):
    """A request and its reply."""

    request_sha256: str  # of the bytes sent
    reply_sha256: str  # of the bytes received
    rows: Tensor  # (n, d) float32


class _Reply(NamedTuple):
    status: int
    wait: str  # the Retry-After header
    data: bytes


@dataclass(eq=False, kw_only=True)
class RemoteEncoder:
    """An encoder behind an HTTP endpoint, called like any other encoder.

    Args:
        url: `https://...` or `http://...`.
        token: bearer token; None for none.
        api: protocol of the endpoint, a name in `APIS`.
        model: name of the endpoint's model, in protocols that have a field for it.
        timeout: seconds for connecting, and for each pause within a reply.
        patience: seconds for one batch with all its retries.
        max_bytes: most bytes of a reply per image; 64 per number once the dimension is known.
        batch_size: images per request.
        allow_http: whether to transmit images and token to another machine without encryption.

    Raises:
        SuspectError: if address, token, protocol, or the environment's proxy or certificates cannot be used.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    api: str = "turnmark"
    model: str | None = None
    timeout: float = 30.0
    patience: float = 120.0
    max_bytes: int = 2**19
    batch_size: int = 64
    allow_http: bool = False
    requests: int = field(default=0, init=False)  # sent so far, retries included
    dim: int | None = field(default=None, init=False)  # of a representation, after the first reply
    _route: Route = field(init=False, repr=False)

    def __post_init__(self) -> None:
        require("httpx")
        host_of(self.url, allow_http=self.allow_http)
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise SuspectError("the token contains invalid characters", "set TURNMARK_TOKEN again, without spaces")
        if self.api not in APIS:
            raise SuspectError(f"unknown kind of endpoint {printable(self.api)}", f"one of: {', '.join(APIS)}")
        self._route = route_to(self.url, SuspectError)

    def __call__(self, images: Tensor) -> Tensor:
        """Return representations `(n, d)` of images `(n, 3, h, w)` float32 in [0, 1].

        Raises:
            SuspectError: if the endpoint cannot be reached, refuses, or sends an invalid reply.
        """
        pictures = as_uint8(images.cpu())
        return torch.cat([self.exchange(chunk).rows for chunk in torch.split(pictures, self.batch_size)])

    def exchange(self, images: Tensor) -> Exchange:
        """Query uint8 images `(n, 3, h, w)` in one request, and repeat it while the endpoint asks to retry.

        Raises:
            SuspectError: as for a call.
        """
        encoded = [base64.b64encode(png_bytes(image)).decode("ascii") for image in images]
        body = json.dumps(APIS[self.api].body(encoded, self.model)).encode()
        reply = self._ask(body, len(images))
        try:
            rows = read_answer(APIS[self.api], reply, len(images))
        except SuspectError as e:
            raise SuspectError(e.message + self._said(stated_error(reply)), e.hint) from e
        self.expect(rows.shape[1])
        return Exchange(sha256(body), sha256(reply), rows)

    def expect(self, dim: int) -> None:
        """Require that representations have this dimension from now on.

        Raises:
            SuspectError: if earlier representations have another dimension.
        """
        if self.dim not in (None, dim):
            raise SuspectError(
                f"the endpoint changes the length of its representations, from {self.dim} to {dim}", "ask its provider"
            )
        self.dim = dim

    def _ask(self, body: bytes, n: int) -> bytes:
        """Send a request; repeat it while the endpoint asks to retry, for at most `patience` seconds."""
        deadline, pause = time.monotonic() + self.patience, 0.5
        while True:
            reply, problem = self._attempt(body, n, deadline)
            if reply is not None and reply.status == 200:
                return reply.data
            if reply is not None and reply.status not in RETRIED:
                raise SuspectError(f"the endpoint refused: {problem}", HINTS.get(reply.status, "check the address"))
            asked = None if reply is None else _seconds(reply.wait)
            pause = min(LONGEST_PAUSE, 2 * pause if asked is None else asked)
            if time.monotonic() + pause > deadline:
                raise SuspectError(f"the endpoint gave no answer in {self.patience:g} s ({problem})", "try again later")
            time.sleep(pause)

    def _attempt(self, body: bytes, n: int, deadline: float) -> tuple[_Reply | None, str]:
        """Send a request once; return the reply and its problem, or None and why there is none for the moment."""
        import httpx

        try:
            self.requests += 1
            reply = _within(deadline, lambda: self._post(body, n, deadline), self._too_slow)
        except httpx.TimeoutException as e:
            raise SuspectError(f"the endpoint did not answer within {self.timeout:g} s", "try again later") from e
        except httpx.ProxyError as e:  # before HTTPError, of which it is one
            if str(e).startswith("4"):  # what it says of hosts and passwords does not change
                raise SuspectError(f"the proxy refused: {printable(e)}", HINTS[407]) from e
            return None, f"the proxy says: {printable(e)}"
        except httpx.HTTPError as e:
            if "[SSL" in str(e):  # a retry does not repair a certificate
                raise SuspectError(f"no secure connection: {printable(e)}", "check address and certificate") from e
            return None, printable(e) or type(e).__name__
        except (httpx.InvalidURL, UnicodeError, ValueError) as e:
            raise SuspectError(f"the address cannot be used: {printable(e)}", "https://...") from e
        said = "" if reply.status == 200 else self._said(error_text(reply.data))
        return reply, f"HTTP {reply.status}{said}"

    def _post(self, body: bytes, n: int, deadline: float) -> _Reply:
        """Send a request once and return the reply."""
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        with (
            self._route.client(self.timeout) as client,
            client.stream("POST", self.url, content=body, headers=headers) as response,
        ):
            data = self._read(response, n, deadline) if response.status_code == 200 else _beginning(response)
            return _Reply(response.status_code, response.headers.get("Retry-After", ""), data)

    def _read(self, response: httpx.Response, n: int, deadline: float) -> bytes:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise SuspectError("the endpoint compresses its answers, though asked not to", "ask its provider")
        limit = n * (self.max_bytes if self.dim is None else min(self.max_bytes, 1024 + 64 * self.dim))
        data = bytearray()
        for piece in response.iter_raw():
            data += piece
            if len(data) > limit:
                raise SuspectError(f"the endpoint's answer is larger than {limit} bytes", "not an encoder?")
            if time.monotonic() > deadline:
                raise self._too_slow()
        return bytes(data)

    def _said(self, text: str) -> str:
        """Return what the endpoint says for a message: without the secrets that it was sent, escaped and cut."""
        for secret in filter(None, (self.token, urlsplit(self.url).query)):
            text = text.replace(secret, "…")
        return f": {printable(text, 200)}" if text else ""

    def _too_slow(self) -> SuspectError:
        return SuspectError(f"the endpoint took more than {self.patience:g} s over an answer", "try again later")


def _seconds(wait: str) -> float | None:
    """Return the pause that a Retry-After header asks for, in seconds or until a date; None if it asks for none."""
    if wait.isascii() and wait.replace(".", "", 1).isdecimal():
        return float(wait)
    try:
        return max(0.0, parsedate_to_datetime(wait).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, OSError):  # no date, or none of this calendar
        return None


def _beginning(response: httpx.Response) -> bytes:
    """Return the beginning of the body of an error; nothing if it is compressed or cannot be read."""
    import httpx

    data, end = bytearray(), time.monotonic() + ERROR_SECONDS
    if response.headers.get("Content-Encoding", "identity") == "identity":
        with suppress(httpx.HTTPError):  # the status says enough
            for piece in response.iter_raw():
                data += piece
                if len(data) >= ERROR_BYTES or time.monotonic() > end:
                    break
    return bytes(data[:ERROR_BYTES])


def _within(deadline: float, work: Callable[[], _Reply], too_slow: Callable[[], SuspectError]) -> _Reply:
    """Run `work` in a thread, and abandon the thread at the deadline.

    A socket's timeout limits each pause only: an endpoint that sends one byte of a header at a time never exceeds it.
    """
    done: queue.SimpleQueue[_Reply | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put(work())
        except BaseException as e:  # raised by the waiting thread
            done.put(e)

    threading.Thread(target=run, daemon=True).start()
    try:
        result = done.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise too_slow() from None
    if isinstance(result, BaseException):
        raise result
    return result
