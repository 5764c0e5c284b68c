"""An embedding server on the loopback address that speaks every protocol and misbehaves on request."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch

from ownership.encoders.images import EncoderLike, represent


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((dict(self.headers), body))
        misbehave = self.server.misbehaviour
        if misbehave is not None and len(self.server.requests) > self.server.good:
            misbehave(self)
            return
        self.reply(200, json.dumps(self.server.answer(body)).encode())

    def reply(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return


class Server(ThreadingHTTPServer):
    """Speaks all languages, told by the request; counts images; misbehaves after so many good requests."""

    daemon_threads = True

    def __init__(self, victim: EncoderLike) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.victim, self.images = victim, 0
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.misbehaviour: Callable[[Handler], None] | None = None
        self.good = 0

    def handle_error(self, *_: object) -> None:
        return  # clients hang up on those who misbehave

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        from PIL import Image

        texts = body.get("images") or [t.removeprefix("data:image/png;base64,") for t in body["input"]]
        arrays = [np.array(Image.open(io.BytesIO(base64.b64decode(t)), formats=["PNG"])) for t in texts]
        self.images += len(arrays)
        rows = represent(self.victim, torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)).numpy()
        if "images" in body:
            return {"representations": rows.tolist()}
        encoded = [
            base64.b64encode(row.astype("<f4").tobytes()).decode()
            if body["encoding_format"] == "base64"
            else row.tolist()
            for row in rows
        ]
        data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(encoded)]
        return {"object": "list", "data": data[::-1], "model": body.get("model"), "usage": {"total_tokens": 0}}


@contextmanager
def serving(victim: EncoderLike) -> Iterator[tuple[Server, str]]:
    server = Server(victim)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_address[1]}/embed?key=s3cret"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
