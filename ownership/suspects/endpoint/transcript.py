"""The replies of an endpoint, on disk: an interrupted audit resumes, and no query is paid for twice.

```
transcript/
├── transcript.json          format, the endpoint's host, protocol and model, SHA-256 of its address
└── 000000.safetensors ...   one request and its reply each, in the order of the requests
```

A reply is stored for a *query*: the SHA-256 of an image and the occurrence, the number of earlier queries of the same
image in the audit. The repeated queries of the stability check are occurrence 1, and are sent to the endpoint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ownership.encoders.images import as_uint8, pixel_digests
from ownership.errors import SuspectError
from ownership.io.canonical import canonical_json, parse_json, sha256
from ownership.io.files import read_bytes, write_bytes
from ownership.io.text import printable
from ownership.suspects.endpoint.client import Exchange, RemoteEncoder

FORMAT = "turnmark-transcript-1"

Query = tuple[bytes, int]
"""SHA-256 of an image's pixels, and the occurrence: the n-th query of that image has n - 1."""


class Transcript:
    """The requests and replies of one endpoint.

    Args:
        folder: created with the first reply.
        remote: the endpoint.

    Raises:
        SuspectError: if the folder is damaged or belongs to another endpoint.
    """

    def __init__(self, folder: Path, remote: RemoteEncoder) -> None:
        self.folder = folder
        self._about = canonical_json(about(remote))
        self._digests: dict[str, str] = {}
        self.size = 0  # bytes of all files with replies
        self._answers: dict[Query, Tensor] = {}
        if not folder.is_dir():
            return
        stated = folder / "transcript.json"
        if not stated.is_file():
            if any(not path.name.startswith(".") for path in folder.iterdir()):  # dots: left by a killed audit
                raise SuspectError(
                    f"{printable(folder, 300)} is no transcript: it has no transcript.json", "name another --transcript"
                )
            return
        content = parse_json(read_bytes(stated, SuspectError, "transcript"), SuspectError, "transcript")
        if canonical_json(content) != self._about:
            raise SuspectError(
                f"{printable(folder, 300)} holds the answers of another endpoint, or in another protocol",
                "name another --transcript",
            )
        while (path := self._path(len(self._digests))).is_file():
            data = read_bytes(path, SuspectError, "transcript")
            try:
                self._remember(path.name, data, remote)
            except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as e:
                raise SuspectError(
                    f"transcript: {path.name} is damaged", "delete the transcript; its answers must be asked for again"
                ) from e

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def sha256(self) -> str:
        """SHA-256 of the canonical JSON that maps each file to its SHA-256."""
        return sha256(canonical_json({"transcript.json": sha256(self._about), **self._digests}))

    def find(self, query: Query) -> Tensor | None:
        """Return the representation `(d,)` for a query, if it is stored."""
        return self._answers.get(query)

    def add(self, queries: Sequence[Query], answered: Exchange, remote: RemoteEncoder) -> None:
        """Store a request and its reply atomically.

        Raises:
            SuspectError: if another audit has written the next file.
            OwnershipError: if it cannot be written.
        """
        if not self._digests:
            write_bytes(self.folder / "transcript.json", self._about)
        path = self._path(len(self._digests))
        if path.exists():
            raise SuspectError(
                f"another audit writes into {printable(self.folder, 300)}, or files of it are missing",
                "wait for it, or name another --transcript",
            )
        tensors = {
            "images": _bytes(b"".join(digest for digest, _ in queries)).view(-1, 32),
            "occurrences": torch.tensor([occurrence for _, occurrence in queries], dtype=torch.int64),
            "rows": answered.rows.contiguous(),
            "request_sha256": _bytes(bytes.fromhex(answered.request_sha256)),
            "reply_sha256": _bytes(bytes.fromhex(answered.reply_sha256)),
        }
        data = save(tensors)
        write_bytes(path, data)
        self._remember(path.name, data, remote)

    def _remember(self, name: str, data: bytes, remote: RemoteEncoder) -> None:
        tensors = load(data)
        images, occurrences, rows = tensors["images"], tensors["occurrences"], tensors["rows"]
        if (
            (images.dtype, occurrences.dtype, rows.dtype) != (torch.uint8, torch.int64, torch.float32)
            or images.shape != (len(rows), 32)
            or occurrences.shape != (len(rows),)
            or rows.ndim != 2
        ):
            raise ValueError("no rows of queries")
        remote.expect(rows.shape[1])
        for image, occurrence, row in zip(images, occurrences.tolist(), rows, strict=True):
            self._answers[(image.numpy().tobytes(), occurrence)] = row
        self._digests[name] = sha256(data)
        self.size += len(data)

    def _path(self, i: int) -> Path:
        return self.folder / f"{i:06d}.safetensors"


class CachedEndpoint:
    """An endpoint with a transcript. One object serves one audit, and counts the queries of each image.

    Args:
        remote: the endpoint, for queries that the transcript does not contain.
        transcript: of this endpoint.
    """

    def __init__(self, remote: RemoteEncoder, transcript: Transcript) -> None:
        self._remote, self._transcript = remote, transcript
        self._counts: Counter[bytes] = Counter()

    def __call__(self, images: Tensor) -> Tensor:
        """Return representations `(n, d)` of images `(n, 3, h, w)` float32 in [0, 1].

        Raises:
            SuspectError: as `RemoteEncoder`; earlier replies are kept, and the hint says so.
            OwnershipError: if a reply cannot be stored.
        """
        pictures = as_uint8(images.cpu())
        queries: list[Query] = []
        for digest in pixel_digests(pictures):
            queries.append((digest, self._counts[digest]))
            self._counts[digest] += 1
        unknown = [i for i, query in enumerate(queries) if self._transcript.find(query) is None]
        for start in range(0, len(unknown), self._remote.batch_size):
            part = unknown[start : start + self._remote.batch_size]
            try:
                answered = self._remote.exchange(pictures[part])
            except SuspectError as e:
                raise type(e)(e.message, f"{e.hint}{self._kept()}") from e
            self._transcript.add([queries[i] for i in part], answered, self._remote)
        return torch.stack([row for q in queries if (row := self._transcript.find(q)) is not None])

    def _kept(self) -> str:
        count, folder = len(self._transcript), self._transcript.folder
        return f"; {count} answers are kept in {printable(folder, 300)}: repeat the command to go on" if count else ""


def about(remote: RemoteEncoder) -> dict[str, Any]:
    """Return the record of an endpoint, without the whole address, which may contain a secret."""
    parts = urlsplit(remote.url)
    address = parts._replace(query="", fragment="").geturl()
    return {
        "format": FORMAT,
        "host": printable(parts.netloc),
        "api": remote.api,
        "model": remote.model,
        "address_sha256": sha256(address.encode("utf-8", "surrogatepass")),
    }


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
