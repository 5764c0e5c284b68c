"""One HTTP request to a service that vouches for something: bounded in size and time, without redirects."""

from __future__ import annotations

import time

from ownership.errors import OwnershipError
from ownership.io.extras import require
from ownership.io.network import is_http, route_to
from ownership.io.text import printable

MOST_BYTES = 2**16
"""Largest size of a reply in bytes; usual replies of timestamp authorities have 2000 to 8000."""


def exchange(
    url: str,
    content: bytes | None = None,
    *,
    content_type: str = "",
    what: str = "a timestamp authority",
    instead: str = "a request from another machine (claim seal --request, key request, twins request)",
    timeout: float = 30.0,
) -> bytes:
    """Return what a service answers to one request.

    Args:
        url: Address of the service.
        content: What is posted to it; None: its answer is only fetched.
        content_type: Media type of the content.
        what: What the service is, for messages.
        instead: What makes do without a network, for messages.
        timeout: Limit for the whole reply, in seconds.

    Raises:
        OwnershipError: If there is no usable reply.
    """
    require("httpx", extra="seal")
    import httpx

    shown, deadline = printable(url), time.monotonic() + timeout
    if not is_http(url):
        raise OwnershipError(f"{shown} is no HTTP address", "https://...")
    data = bytearray()
    headers = {"Content-Type": content_type} if content_type else {}
    try:
        with (
            route_to(url).client(timeout) as client,
            client.stream("GET" if content is None else "POST", url, content=content, headers=headers) as response,
        ):
            if response.status_code != 200:
                raise OwnershipError(f"{shown} answers HTTP {response.status_code}", f"is it {what}?")
            for piece in response.iter_raw():  # not unpacked: a small reply could hold a large one
                data += piece
                if len(data) > MOST_BYTES:
                    raise OwnershipError(f"{shown}: its reply is larger than {MOST_BYTES} bytes", "ask another one")
                if time.monotonic() > deadline:
                    raise OwnershipError(f"{shown} gave no whole reply in {timeout:g} s", "ask another one")
    except (httpx.HTTPError, httpx.InvalidURL) as e:
        raise OwnershipError(f"{shown} cannot be reached ({printable(e) or type(e).__name__})", f"try {instead}") from e
    return bytes(data)
