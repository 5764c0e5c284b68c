"""How an HTTP request leaves this machine: through which proxy of the environment, and whose certificates it trusts.

httpx would read the environment itself. It sends requests to this machine through a proxy, too, fails on networks in
NO_PROXY, and names no variable where one of them cannot be used.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ownership.errors import OwnershipError
from ownership.io.text import printable

if TYPE_CHECKING:
    import httpx


def is_http(url: str) -> bool:
    """Return whether a text begins like an HTTP address, in upper or lower case."""
    return url.lower().startswith(("https://", "http://"))


def is_this_machine(host: str) -> bool:
    """Return whether a host is this machine.

    >>> is_this_machine("localhost"), is_this_machine("::1"), is_this_machine("192.168.1.5")
    (True, True, False)
    """
    address = _address(host)
    return _is_localhost(host) if address is None else address.is_loopback


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach one address.

    Attributes:
        certificates: whom to trust; empty where nothing is encrypted.
        proxy: address of the proxy; None for none. It may hold a password.
    """

    certificates: ssl.SSLContext
    proxy: str | None = field(default=None, repr=False)

    def client(self, timeout: float) -> httpx.Client:
        """Return a client that follows no redirects and reads nothing of the environment."""
        import httpx

        return httpx.Client(
            timeout=timeout, follow_redirects=False, trust_env=False, proxy=self.proxy, verify=self.certificates
        )


def route_to(url: str, error: type[OwnershipError] = OwnershipError) -> Route:
    """Return how to reach an address.

    Args:
        url: `https://...` or `http://...`.
        error: what to raise.

    Raises:
        OwnershipError: if a variable of the environment names a proxy or certificates that cannot be used.
    """
    import httpx

    try:
        scheme, proxy = urlsplit(url).scheme, proxy_of(url)
    except ValueError as e:  # brackets that no address of version 6 is in, ports that are no numbers
        raise error(f"{printable(url, 200)} is no HTTP address", "https://HOST/...") from e
    encrypted = scheme == "https" or (proxy or "").startswith("https://")
    route = Route(_certificates(error) if encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), proxy)
    try:
        route.client(1.0).close()
    except ImportError as e:
        hint = "pip install socksio, or unset it"
        raise error(f"{_variable(scheme)} names a SOCKS proxy, which needs the package socksio", hint) from e
    except (ValueError, httpx.InvalidURL) as e:
        raise error(f"{_variable(scheme)} is no address of a proxy", "http://HOST:PORT, or unset it") from e
    return route


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment or the system names for an address.

    Addresses of this machine and of private networks have none, nor those that NO_PROXY names: hosts, domains,
    addresses, and networks as in 10.0.0.0/8.
    """
    parts = urlsplit(url)
    host, found = parts.hostname or "", getproxies()
    proxy = found.get(parts.scheme) or found.get("all")
    if not proxy or _is_near(host) or proxy_bypass(host) or _excepted(host, parts.port, found.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_near(host: str) -> bool:
    address = _address(host)
    if address is None:
        return _is_localhost(host)
    return address.is_private or address.is_loopback or address.is_link_local


def _is_localhost(host: str) -> bool:
    return host.lower().removesuffix(".") == "localhost"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _excepted(host: str, port: int | None, exceptions: str) -> bool:
    """Return whether NO_PROXY names the network of an address, or the host with its port, or everything."""
    entries = [entry.strip().lower() for entry in exceptions.split(",")]
    if "*" in entries or f"{host}:{port}" in entries:
        return True
    address = _address(host)
    for entry in entries if address is not None else []:
        try:
            if address in ipaddress.ip_network(entry.strip("[]"), strict=False):
                return True
        except ValueError:  # the name of a host
            continue
    return False


def _variable(scheme: str) -> str:
    """Return which variable named the proxy of a scheme."""
    names = [f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"]
    return next((name for name in names if os.environ.get(name)), "the system's proxy")


def _certificates(error: type[OwnershipError]) -> ssl.SSLContext:
    """Return the certificates that SSL_CERT_FILE or SSL_CERT_DIR names; without them those of certifi."""
    import httpx

    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if value := os.environ.get(name):
            there = Path(value).is_file() if name == "SSL_CERT_FILE" else Path(value).is_dir()
            try:
                if not there:
                    raise FileNotFoundError
                return httpx.create_ssl_context()
            except OSError as e:  # ssl.SSLError, too
                raise error(
                    f"{name}: {printable(value, 300)} holds no certificates", "set it to a PEM file, or unset it"
                ) from e
    return httpx.create_ssl_context()
