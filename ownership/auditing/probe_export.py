"""Export a claim's probes as a probe folder, for a person who runs the suspect on another machine."""

from __future__ import annotations

import secrets
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ownership.claims.claim import Claim
from ownership.encoders.images import as_input, as_uint8, check_images, pixel_digests, png_bytes, three_channels
from ownership.errors import DataError, OwnershipError
from ownership.evidence.querying import repeated_probes
from ownership.io.canonical import canonical_json, sha256
from ownership.io.files import refuse_existing, write_bytes
from ownership.io.progress import Progress, silent
from ownership.suspects.recorded.probe_folder import FORMAT, MAX_COUNT, RETURN, _name

DECOY_SHARE = 0.1
"""Number of decoys, as a share of the number of probes."""


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


def export_probes(
    claim: Claim, folder: Path | str, decoys: Tensor | None = None, *, progress: Progress = silent
) -> int:
    """Write a claim's probes and decoys as a probe folder.

    Args:
        claim: The claim. Each export has another random order.
        folder: A folder that does not exist or is empty.
        decoys: uint8 images `(n, c, h, w)` of the probes' size to draw decoys from; mirrored and cropped copies of
            public probes if None.
        progress: Called every 100 files.

    Returns:
        The number of files written.

    Raises:
        DataError: If the decoys are not images of that size.
        OwnershipError: If the folder exists and is not empty, or cannot be written.
    """
    folder = Path(folder)
    refuse_existing(folder, OwnershipError)
    images = [image for part in claim.probes.values() for image in three_channels(part)]
    queries = [*images, *(images[i] for i in repeated_probes(len(images), claim.plan))]
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
    # the same share of decoys occurs twice, so that an image that occurs twice is not recognized as a probe
    repeated = _drawn(len(mixed_in), round(len(mixed_in) * (len(queries) / len(images) - 1)))
    pictures = [*queries, *mixed_in, *(mixed_in[i] for i in repeated)]
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
    write_bytes(
        folder / "manifest.json", canonical_json({**manifest, "files": files})
    )  # last: a folder with a manifest is complete
    return len(files)


def altered_copies(images: Tensor, n: int) -> Tensor:
    """Return n decoys `(n, 3, h, w)` made from uint8 images `(m, 3, h, w)`: mirrored, cropped, or both."""
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


def _digests_of(claim: Claim) -> set[bytes]:
    return {digest for part in claim.probes.values() for digest in pixel_digests(part)}


def _drawn(n: int, count: int) -> list[int]:
    """Return at most `count` of the first n numbers, in random order, from the system's random numbers."""
    return secrets.SystemRandom().sample(range(n), min(n, count))
