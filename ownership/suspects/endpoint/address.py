"""Addresses of endpoints: what is taken, and what would travel unencrypted."""

from __future__ import annotations

from urllib.parse import urlsplit

from ownership.errors import SuspectError
from ownership.io.network import is_this_machine
from ownership.io.text import printable


def host_of(url: str, *, allow_http: bool = False) -> str:
    """Return the host of an address, with its port if it has one.

    >>> host_of("https://models.example:8443/embed?key=secret")
    'models.example:8443'

    Raises:
        SuspectError: if the address is invalid, contains a password, or would transmit without encryption.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise SuspectError(f"{printable(url.partition('?')[0])} is no address ({printable(e)})", "https://...") from e
    if parts.scheme not in ("https", "http") or not host or not url.isprintable() or " " in url or port == 0:
        raise SuspectError("this is no HTTP address", "https://...")
    if parts.username is not None or parts.password is not None:
        raise SuspectError("the address holds a name or password", "put the token into TURNMARK_TOKEN")
    if parts.scheme == "http" and not allow_http and not is_this_machine(host):
        raise SuspectError(
            f"http:// to {printable(host)} would send images and token in the clear",
            "use https://, or --allow-http if you mean it",
        )
    return printable(parts.netloc)
