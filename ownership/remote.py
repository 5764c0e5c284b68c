"""An encoder behind HTTP: images as PNG in a JSON list, representations back as lists of numbers.

    POST URL   {"images": ["<base64 PNG>", ...]}   ->   {"representations": [[...], ...]}

What comes back is hostile until shown otherwise: redirects are not followed, bytes and time are capped, every answer
must be a list of rows of one length. The token comes from the caller or the environment, never from argv.
"""

from __future__ import annotations

import base64
import io
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ownership.errors import SuspectError, printable
from ownership.images import as_uint8

if TYPE_CHECKING:
    import httpx

RETRIED = {429, 500, 502, 503, 504}


@dataclass(eq=False, kw_only=True)
class RemoteEncoder:
    """An encoder behind an HTTP endpoint; call it like any other.

    Args:
        url: `https://...` or `http://...`.
        token: sent as a bearer token; None for none.
        timeout: seconds for connecting, and for each pause in an answer.
        patience: seconds that one batch may take with all its retries.
        max_bytes: per image, most bytes of an answer.
        batch_size: images a request.
    """

    url: str
    token: str | None = None
    timeout: float = 30.0
    patience: float = 120.0
    max_bytes: int = 2**20
    batch_size: int = 64
    requests: int = 0  # sent so far, retries too

    def __post_init__(self) -> None:
        if not self.url.startswith(("https://", "http://")):
            raise SuspectError(f"{printable(self.url)} is no HTTP address", "https://...")

    def __call__(self, images: Tensor) -> Tensor:
        """Returns representations `(n, d)` of images `(n, 3, h, w)` float32 in [0, 1].

        Raises:
            SuspectError: if the endpoint cannot be reached, refuses, or answers nonsense.
        """
        import httpx

        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        parts = []
        with httpx.Client(timeout=self.timeout, follow_redirects=False, headers=headers) as client:
            for chunk in torch.split(images, self.batch_size):
                body = {"images": [_png(image) for image in as_uint8(chunk.cpu())]}
                parts.append(_rows(self._ask(client, body, len(chunk)), len(chunk)))
        if len({part.shape[1] for part in parts}) != 1:
            raise SuspectError("the endpoint changes the length of its representations", "ask its provider")
        return torch.cat(parts)

    def _ask(self, client: httpx.Client, body: dict[str, Any], n: int) -> bytes:
        """One request with retries: of answers that ask for patience, until `patience` is spent."""
        import httpx

        deadline, pause = time.monotonic() + self.patience, 0.5
        while True:
            try:
                self.requests += 1
                with client.stream("POST", self.url, json=body) as response:
                    if response.status_code == 200:
                        return self._read(response, n, deadline)
                    status, wait = response.status_code, response.headers.get("Retry-After", "")
            except httpx.TimeoutException as e:
                raise SuspectError(f"the endpoint did not answer within {self.timeout:g} s", "try again later") from e
            except httpx.HTTPError as e:
                status, wait, problem = 503, "", printable(e) or type(e).__name__
            else:
                problem = f"HTTP {status}"
            if status not in RETRIED:
                hint = {401: "set the token", 403: "set the token"}.get(status, "check the address")
                raise SuspectError(f"the endpoint refused: HTTP {status}", hint)
            pause = min(float(wait), 60.0) if wait.replace(".", "", 1).isdigit() else 2 * pause
            if time.monotonic() + pause > deadline:
                raise SuspectError(f"the endpoint gave no answer in {self.patience:g} s ({problem})", "try again later")
            time.sleep(pause)

    def _read(self, response: httpx.Response, n: int, deadline: float) -> bytes:
        data = bytearray()
        for piece in response.iter_bytes():
            data += piece
            if len(data) > n * self.max_bytes:
                raise SuspectError(
                    f"the endpoint's answer is larger than {n * self.max_bytes} bytes", "not an encoder?"
                )
            if time.monotonic() > deadline:
                raise SuspectError(f"the endpoint took more than {self.patience:g} s over an answer", "try again later")
        return bytes(data)


def _png(image: Tensor) -> str:
    """Base64 of the PNG of one uint8 image `(3, h, w)`."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(out, format="PNG")
    return base64.b64encode(out.getvalue()).decode("ascii")


def _rows(data: bytes, n: int) -> Tensor:
    """The `(n, d)` numbers of an answer."""
    try:
        rows = json.loads(data)["representations"]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise SuspectError("the endpoint's answer is no JSON with representations", "expected a list of rows") from e
    good = isinstance(rows, list) and len(rows) == n and all(isinstance(row, list) and row for row in rows)
    if (
        not good
        or any(type(x) not in (int, float) for row in rows for x in row)
        or len({len(row) for row in rows}) != 1
    ):
        raise SuspectError(f"the endpoint's answer is not {n} rows of numbers", "expected one row an image")
    try:
        return torch.tensor(rows, dtype=torch.float32)
    except (OverflowError, RuntimeError) as e:
        raise SuspectError("the endpoint answers numbers out of range", "expected float32") from e
