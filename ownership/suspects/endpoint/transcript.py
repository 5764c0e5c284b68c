"""What an endpoint answered, on disk: an interrupted audit goes on where it stopped, and no answer is paid for twice.

```
transcript/
├── transcript.json          format, the endpoint's host, language and model, SHA-256 of its address
└── 000000.safetensors ...   an answered request each, in the order of asking
```

An answer is kept for a *question*: an image, and the how-manieth time an audit asks about it. The repeat check asks
about an image for the second time; that is another question, and it really is asked.
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

Question = tuple[bytes, int]
"""SHA-256 of an image's pixels, and the how-manieth time it is asked about, from 0."""


class Transcript:
    """The answered requests of one endpoint.

    Args:
        folder: made with the first answer.
        remote: whose answers these are.

    Raises:
        SuspectError: if the folder is damaged or holds another endpoint's answers.
    """

    def __init__(self, folder: Path, remote: RemoteEncoder) -> None:
        self.folder = folder
        self._about = canonical_json(about(remote))
        self._digests: dict[str, str] = {}
        self.size = 0  # bytes of all answered requests
        self._answers: dict[Question, Tensor] = {}
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
                f"{printable(folder, 300)} holds the answers of another endpoint, or in another language",
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
        """SHA-256 of the canonical JSON of file -> SHA-256, of all files."""
        return sha256(canonical_json({"transcript.json": sha256(self._about), **self._digests}))

    def find(self, question: Question) -> Tensor | None:
        """Returns the answer `(d,)` to a question, if there is one."""
        return self._answers.get(question)

    def add(self, questions: Sequence[Question], answered: Exchange, remote: RemoteEncoder) -> None:
        """Writes an answered request down, whole or not at all.

        Raises:
            SuspectError: if somebody else wrote the file that is next.
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
            "images": _bytes(b"".join(digest for digest, _ in questions)).view(-1, 32),
            "times": torch.tensor([time for _, time in questions], dtype=torch.int64),
            "rows": answered.rows.contiguous(),
            "request_sha256": _bytes(bytes.fromhex(answered.request_sha256)),
            "reply_sha256": _bytes(bytes.fromhex(answered.reply_sha256)),
        }
        data = save(tensors)
        write_bytes(path, data)
        self._remember(path.name, data, remote)

    def _remember(self, name: str, data: bytes, remote: RemoteEncoder) -> None:
        tensors = load(data)
        images, times, rows = tensors["images"], tensors["times"], tensors["rows"]
        if (
            (images.dtype, times.dtype, rows.dtype) != (torch.uint8, torch.int64, torch.float32)
            or images.shape != (len(rows), 32)
            or times.shape != (len(rows),)
            or rows.ndim != 2
        ):
            raise ValueError("no rows of questions")
        remote.expect(rows.shape[1])
        for image, time, row in zip(images, times.tolist(), rows, strict=True):
            self._answers[(image.numpy().tobytes(), time)] = row
        self._digests[name] = sha256(data)
        self.size += len(data)

    def _path(self, i: int) -> Path:
        return self.folder / f"{i:06d}.safetensors"


class CachedEndpoint:
    """An endpoint whose answers are kept; one object is one audit, and counts how often an image is asked about.

    Args:
        remote: asked what the transcript does not know.
        transcript: of this endpoint.
    """

    def __init__(self, remote: RemoteEncoder, transcript: Transcript) -> None:
        self._remote, self._transcript = remote, transcript
        self._asked: Counter[bytes] = Counter()

    def __call__(self, images: Tensor) -> Tensor:
        """Returns representations `(n, d)` of images `(n, 3, h, w)` float32 in [0, 1].

        Raises:
            SuspectError: as `RemoteEncoder`; what was answered before is kept, and the hint says so.
            OwnershipError: if an answer cannot be written down.
        """
        pictures = as_uint8(images.cpu())
        questions: list[Question] = []
        for digest in pixel_digests(pictures):
            questions.append((digest, self._asked[digest]))
            self._asked[digest] += 1
        unknown = [i for i, question in enumerate(questions) if self._transcript.find(question) is None]
        for start in range(0, len(unknown), self._remote.batch_size):
            part = unknown[start : start + self._remote.batch_size]
            try:
                answered = self._remote.exchange(pictures[part])
            except SuspectError as e:
                raise type(e)(e.message, f"{e.hint}{self._kept()}") from e
            self._transcript.add([questions[i] for i in part], answered, self._remote)
        return torch.stack([row for q in questions if (row := self._transcript.find(q)) is not None])

    def _kept(self) -> str:
        count, folder = len(self._transcript), self._transcript.folder
        return f"; {count} answers are kept in {printable(folder, 300)}: repeat the command to go on" if count else ""


def about(remote: RemoteEncoder) -> dict[str, Any]:
    """Returns what is written of an endpoint: not its whole address, which may hold a secret."""
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
