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
import secrets
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ownership.claim import Claim, refuse_existing
from ownership.encoders.images import as_input, as_uint8, check_images, pixel_digests, png_bytes, three_channels
from ownership.errors import DataError, SuspectError
from ownership.io.canonical import canonical_json, parse_json, sha256
from ownership.io.files import read_bytes, write_bytes
from ownership.io.progress import Progress, silent
from ownership.io.text import printable
from ownership.matrices import MAX_DIM, MIN_DIM
from ownership.probes import asked_again

FORMAT = "turnmark-probes-1"

DECOY_SHARE = 0.1
"""Decoys for each question."""

MAX_COUNT = 1_000_000
"""Pictures in a folder: six digits."""

MAX_SIDE = 4096

RETURN = (
    f"One row of {MIN_DIM} to {MAX_DIM} floating-point numbers for each picture, in the order of the file names: the "
    "encoder's representation of it. A 2-D array, float16, float32 or float64, as .npy, .safetensors or .parquet."
)

README = """Pictures for an encoder
=======================

{count} PNG files of {height} x {width} pixels (height x width), to be embedded by one encoder.

Please return: {wanted}

- Row i belongs to file i: 000000.png is the first row. Leave none out, also where pictures look alike or are the same.
- Embed each picture by itself, as your service does: the same preprocessing (size, mean, standard deviation), the
  network in evaluation mode, no random augmentation, the vector that your users get.
- Do not normalise, round or shorten the vectors beyond what your users get.

In Python, with numpy, where embed() is your encoder:

    from pathlib import Path
    import numpy as np
    files = sorted(Path("probes").glob("*.png"))
    np.save("representations.npy", np.stack([embed(f) for f in files]).astype("<f4"))

manifest.json has the SHA-256 of every file, to check the copy.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFolder:
    """A probe folder as read: which pixels each row answers."""

    digests: tuple[bytes, ...]  # SHA-256 of the pixels of picture i
    manifest_sha256: str

    def __len__(self) -> int:
        return len(self.digests)


def export_probes(claim: Claim, folder: Path, decoys: Tensor | None = None, *, progress: Progress = silent) -> int:
    """Writes a claim's probes as a probe folder.

    Args:
        claim: whose probes; each export is shuffled anew.
        folder: a new one.
        decoys: uint8 images `(n, c, h, w)` of the probes' size to draw decoys from; mirrored and cropped copies of
            public probes if not given.
        progress: called now and then.

    Returns:
        How many pictures were written.

    Raises:
        ClaimError: if the folder exists and is not empty.
        DataError: if the decoys are no images of that size.
        OwnershipError: if it cannot be written.
    """
    refuse_existing(folder)
    images = [image for part in claim.probes.values() for image in three_channels(part)]
    questions = [*images, *(images[i] for i in asked_again(len(images), claim.plan))]
    wanted = max(1, round(DECOY_SHARE * len(images)))
    size = images[0].shape[-2:]
    if decoys is None:
        added = altered_copies(three_channels(claim.probes["public"]), wanted)
    else:
        check_images(decoys, DataError)
        if decoys.shape[-2:] != size:
            raise DataError(
                f"decoys of {decoys.shape[-2]}x{decoys.shape[-1]} pixels, probes of {size[0]}x{size[1]}", "resize them"
            )
        added = three_channels(decoys[_drawn(len(decoys), wanted)])
    by_digest = dict(zip(pixel_digests(added), added, strict=True))
    mixed_in = [by_digest[digest] for digest in by_digest.keys() - _digests_of(claim)]
    # as many decoys twice, in proportion: being there twice tells nothing either
    again = _drawn(len(mixed_in), round(len(mixed_in) * (len(questions) / len(images) - 1)))
    pictures = [*questions, *mixed_in, *(mixed_in[i] for i in again)]
    if len(pictures) > MAX_COUNT:
        raise DataError(f"{len(pictures)} pictures are too many", f"at most {MAX_COUNT}: build a claim of fewer probes")
    secrets.SystemRandom().shuffle(pictures)
    files = {}
    for i, picture in enumerate(pictures):
        data = png_bytes(picture)
        write_bytes(folder / _name(i), data)
        files[_name(i)] = sha256(data)
        if i % 100 == 99:
            progress("writing pictures", i + 1, len(pictures))
    height, width = size
    text = README.format(count=len(files), height=height, width=width, wanted=RETURN)
    write_bytes(folder / "README.txt", text.encode())
    manifest = {"format": FORMAT, "count": len(files), "height": height, "width": width, "return": RETURN}
    write_bytes(folder / "manifest.json", canonical_json({**manifest, "files": files}))  # last: what has it is whole
    return len(files)


def altered_copies(images: Tensor, n: int) -> Tensor:
    """Returns n decoys `(n, 3, h, w)` made from uint8 images `(m, 3, h, w)`: mirrored, cropped, or both."""
    random = secrets.SystemRandom()
    height, width = images.shape[-2:]
    out = []
    for i in range(n):
        image = images[random.randrange(len(images))]
        kind = i % 3
        if kind != 1:
            image = image.flip(-1)
        if kind != 0:
            h, w = (max(4, round(side * random.uniform(0.7, 0.95))) for side in (height, width))
            top, left = random.randrange(height - h + 1), random.randrange(width - w + 1)
            cut = as_input(image[None, :, top : top + h, left : left + w])
            image = as_uint8(F.interpolate(cut, size=(height, width), mode="bilinear"))[0]
        out.append(image)
    return torch.stack(out)


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


def _digests_of(claim: Claim) -> set[bytes]:
    return {digest for part in claim.probes.values() for digest in pixel_digests(part)}


def _drawn(n: int, count: int) -> list[int]:
    """Returns `count` of the first n numbers (all if there are no more), by the system's randomness, shuffled."""
    return secrets.SystemRandom().sample(range(n), min(n, count))


def _name(i: int) -> str:
    return f"{i:06d}.png"
