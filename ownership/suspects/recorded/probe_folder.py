"""The probe folder: a claim's probes as pictures, for somebody who runs the suspect elsewhere and sends back rows.

```
probes/
├── 000000.png ...   every question of an audit as one picture, and decoys, shuffled
├── manifest.json    count, image size, SHA-256 of each picture, what to return
└── README.txt       the same in words
```

One file is one question: what an audit asks twice is there twice. The order comes from the system's randomness and is
written down nowhere; an audit finds a picture again by the SHA-256 of its pixels, so the folder says nothing of which
picture is private, public, turned, marked or a decoy. What a picture shows is seen, of course: a turned one looks
turned.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ownership.encoders.images import pixel_digests
from ownership.errors import SuspectError
from ownership.io.canonical import parse_json, sha256
from ownership.io.files import read_bytes
from ownership.io.text import printable
from ownership.suspects.recorded.arrays import MAX_DIM, MIN_DIM

FORMAT = "turnmark-probes-1"


MAX_COUNT = 1_000_000
"""Pictures in a folder: six digits."""

MAX_SIDE = 4096

RETURN = (
    f"One row of {MIN_DIM} to {MAX_DIM} floating-point numbers for each picture, in the order of the file names: the "
    "encoder's representation of it. A 2-D array, float16, float32 or float64, as .npy, .safetensors or .parquet."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFolder:
    """A probe folder as read: which pixels each row answers."""

    digests: tuple[bytes, ...]  # SHA-256 of the pixels of picture i
    manifest_sha256: str

    def __len__(self) -> int:
        return len(self.digests)


def read_probe_folder(folder: Path) -> ProbeFolder:
    """Reads a probe folder and checks every picture against the manifest.

    Raises:
        SuspectError: if it is no probe folder, or a picture is missing, changed or no PNG of the stated size.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise SuspectError(
            f"{printable(folder, 300)} is no probe folder: it has no manifest.json", "make one: turnmark claim probes"
        )
    data = read_bytes(path, SuspectError, "probes")
    manifest = parse_json(data, SuspectError, "probes: manifest.json")
    count, height, width, files = (manifest.get(k) for k in ("count", "height", "width", "files"))
    if manifest.get("format") != FORMAT:
        raise SuspectError(
            f"probes: manifest.json of format {printable(manifest.get('format'), 40)}",
            f"expected {FORMAT}; update turnmark",
        )
    if (
        not (type(count) is type(height) is type(width) is int and isinstance(files, dict))
        or not (0 < count <= MAX_COUNT and 8 <= height <= MAX_SIDE and 8 <= width <= MAX_SIDE)
        or list(files) != [_name(i) for i in range(count)]
    ):
        raise SuspectError("probes: manifest.json is malformed", "get the original folder")
    digests = [_picture(folder / name, files[name], height, width) for name in files]
    return ProbeFolder(digests=tuple(digests), manifest_sha256=sha256(data))


def _picture(path: Path, digest: object, height: int, width: int) -> bytes:
    """The SHA-256 of the pixels of one picture."""
    from PIL import Image

    data = read_bytes(path, SuspectError, "probes")
    if sha256(data) != digest:
        raise SuspectError(f"probes: {path.name} does not match manifest.json", "get the original folder")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                if image.size != (width, height) or image.mode != "RGB":
                    raise SuspectError(f"probes: {path.name} is no RGB picture of {height}x{width}", "export again")
                pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise SuspectError(f"probes: {path.name} is no PNG picture", "get the original folder") from e
    return pixel_digests(pixels[None])[0]


def _name(i: int) -> str:
    return f"{i:06d}.png"
