"""A small reference endpoint that serves an encoder with a token, a rate limit and a query count, for trials.

It implements the protocol of `ownership.suspects.endpoint.client`. It is not meant for production: one process, no TLS.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import io
import time
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
import torch

from attacks_for_eval.extraction.black_box import BlackBox, BudgetError
from ownership.errors import OwnershipError
from ownership.io.extras import require

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse

MAX_IMAGES = 256
MAX_SIDE = 1024


def make_app(victim: BlackBox, *, token: str | None = None, per_minute: int | None = None) -> Starlette:
    """Return an ASGI application that answers `POST /represent`.

    Args:
        victim: counts the queries; when its budget is used up, requests get status 402.
        token: bearer token that requests must carry; None for none.
        per_minute: most images a minute; further requests get status 429 with Retry-After.
    """
    require("starlette")
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    recent: deque[tuple[float, int]] = deque()

    def wait_for(n: int) -> float:
        """Seconds until n more images fit into the last minute; 0 if they fit now."""
        now = time.monotonic()
        while recent and recent[0][0] <= now - 60:
            recent.popleft()
        if per_minute is None or sum(count for _, count in recent) + n <= per_minute:
            return 0.0
        return recent[0][0] + 60 - now if recent else 60.0

    async def represent(request: Request) -> JSONResponse:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token is not None and not hmac.compare_digest(given.encode(), token.encode()):
            return JSONResponse({"error": "token missing or wrong"}, status_code=401)
        try:
            images = _decode(await request.json())
        except (ValueError, TypeError, KeyError, OSError, binascii.Error):
            return JSONResponse({"error": f"expected 1 to {MAX_IMAGES} base64 images of one size"}, status_code=400)
        if wait := wait_for(len(images)):
            return JSONResponse({"error": "rate"}, status_code=429, headers={"Retry-After": f"{wait:.1f}"})
        recent.append((time.monotonic(), len(images)))
        try:
            responses = await run_in_threadpool(victim, images)
        except BudgetError as e:
            return JSONResponse({"error": e.message}, status_code=402)
        except OwnershipError as e:
            return JSONResponse({"error": e.message}, status_code=400)
        return JSONResponse({"representations": responses.tolist()})

    return Starlette(routes=[Route("/represent", represent, methods=["POST"])])


def _decode(body: object) -> torch.Tensor:
    """Images of a request as uint8 `(n, 3, h, w)`."""
    from PIL import Image

    if not isinstance(body, dict) or not isinstance(body["images"], list) or not 1 <= len(body["images"]) <= MAX_IMAGES:
        raise ValueError("no images")
    arrays = []
    for text in body["images"]:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG", "JPEG"]) as image:
            if max(image.size) > MAX_SIDE:
                raise ValueError("too large")
            arrays.append(np.asarray(image.convert("RGB")))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
