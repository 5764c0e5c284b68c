"""The probe folder: a claim's probes as PNG images, for a third party that runs the suspect and returns its output.

```
probes/
├── 000000.png ...   one image for each query of an audit, and decoys, shuffled
├── manifest.json    count, image size, SHA-256 of each image, what to return
└── README.txt       the same as text
```

One file is one query; an image that an audit queries twice is in the folder twice. The order is random and not
recorded: an audit finds an image by the SHA-256 of its pixels. The folder therefore does not state which images are
private, public, rotated, watermark probes or decoys. A viewer can see that an image is rotated.
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
"""Most images in a folder: file names have six digits."""

MAX_SIDE = 4096

RETURN = (
    f"One row of {MIN_DIM} to {MAX_DIM} floating-point numbers for each picture, in the order of the file names: the "
    "encoder's representation of it. A 2-D array, float16, float32 or float64, as .npy, .safetensors or .parquet."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFolder:
    """The images of a probe folder, in the order of the recorded rows."""

    digests: tuple[bytes, ...]  # SHA-256 of the pixels of image i
    manifest_sha256: str

    def __len__(self) -> int:
        return len(self.digests)


def read_probe_folder(folder: Path) -> ProbeFolder:
    """Read a probe folder and check every image against the manifest.

    Raises:
        SuspectError: if it is not a probe folder, or an image is missing, changed or not a PNG of the stated size.
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
    """Return the SHA-256 of the pixels of one image."""
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
