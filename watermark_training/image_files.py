"""Image files, in folders or in WebDataset shards, as one uint8 array, in memory or in a file to be memory-mapped.

Decoding runs in threads (Pillow releases the interpreter lock) and only once: training reads pixels, not files.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ownership.errors import DataError
from ownership.io.progress import Progress, silent
from ownership.io.text import printable
from watermark_training.choices import OnBadImage

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
CHUNK = 256
"""Image files decoded at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    name: str
    group: str  # its folder: its class
    read: Callable[[], bytes]


def find_images(path: Path) -> list[_File]:
    """Return the image files of a folder in order of their names, or of a shard or a folder of shards in their order.

    Raises:
        DataError: if there are none, or a shard cannot be read.
    """
    shards = [path] if path.suffix == ".tar" else sorted(path.glob("*.tar"))
    files: list[_File] = []
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        files = [_File(name=str(p), group=str(p.parent), read=p.read_bytes) for p in found]
    for shard in [] if files else shards:
        try:
            with tarfile.open(shard, "r:") as archive:
                members = [m for m in archive if m.isfile() and Path(m.name).suffix.lower() in SUFFIXES]
        except (tarfile.TarError, OSError) as e:
            raise DataError(f"{printable(shard, 300)} is not a readable shard", "fetch it again") from e
        files += [
            _File(name=f"{shard.name}/{m.name}", group="", read=partial(_part, shard, m.offset_data, m.size))
            for m in members
        ]
    if not files:
        raise DataError(
            f"data: {printable(path, 300)} holds no images", f"expected {', '.join(sorted(SUFFIXES))}, or .tar shards"
        )
    return files


def _part(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as f:
        f.seek(offset)
        return f.read(size)


def decode(file: _File, size: int | None) -> NDArray[np.uint8] | DataError:
    """Return an image as RGB `(h, w, 3)`, converted from any other mode; or the error that prevents it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(file.read())) as image:
            picture = image.convert("RGB")
            if size is not None:
                picture = picture.resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(picture)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError):
        return DataError(
            f"{printable(file.name, 300)} is not a readable image",
            "remove it (turnmark train --on-bad-image skip leaves it out)",
        )


def decoded_images(
    files: list[_File], size: int | None, on_bad_image: OnBadImage, skipped: list[str], progress: Progress = silent
) -> Iterator[tuple[_File, NDArray[np.uint8]]]:
    """Yield files with their images, all of one size; the names of unreadable ones are added to `skipped`.

    Raises:
        DataError: at an unreadable file if `on_bad_image` is "stop", and at an image of another size than the first.
    """
    if on_bad_image not in ("stop", "skip"):
        raise DataError(f"on_bad_image is {on_bad_image!r}, not stop or skip")
    shape: tuple[int, ...] | None = None
    rest, done = iter(files), 0
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        while chunk := list(islice(rest, CHUNK)):
            for file, found in zip(chunk, pool.map(partial(decode, size=size), chunk), strict=True):
                if isinstance(found, DataError):
                    if on_bad_image == "stop":
                        raise found
                    skipped.append(file.name)
                    continue
                shape = shape or found.shape
                if found.shape != shape:
                    raise DataError(
                        f"{printable(file.name, 300)} is {found.shape[1]}x{found.shape[0]}, others are "
                        f"{shape[1]}x{shape[0]}",
                        "give --size to bring all to one size",
                    )
                yield file, found
            done += len(chunk)
            progress("reading images", done, len(files))


def read_images(
    path: Path, size: int | None, *, on_bad_image: OnBadImage, skipped: list[str]
) -> tuple[Tensor, Tensor | None]:
    """Return the images of a folder or of shards as `(n, 3, h, w)` uint8; sub-folders are classes.

    Raises:
        DataError: if there are none, one is unreadable or has another size.
    """
    found = list(decoded_images(find_images(path), size, on_bad_image, skipped))
    if not found:
        raise DataError(f"data: none of the {len(skipped)} files in {printable(path, 300)} is a readable image")
    groups = sorted({file.group for file, _ in found})
    labels = torch.tensor([groups.index(file.group) for file, _ in found]) if len(groups) > 1 else None
    return torch.from_numpy(np.stack([x for _, x in found])).permute(0, 3, 1, 2).contiguous(), labels


def pack(
    path: Path, out: Path, size: int | None, *, on_bad_image: OnBadImage = "stop", progress: Progress = silent
) -> tuple[int, list[str]]:
    """Decode the images of a folder or of shards into one `.npy` of uint8 `(n, 3, h, w)`, whole or not at all.

    Memory use does not grow with their number: images are written as they are decoded.

    Returns:
        The number of images, and the names of the files that were skipped.

    Raises:
        DataError: as in `read_images`, or if the file cannot be written.
    """
    files, skipped, count = find_images(path), list[str](), 0
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as f:
            shape: tuple[int, ...] | None = None
            for _, picture in decoded_images(files, size, on_bad_image, skipped, progress):
                if shape is None:
                    shape = (3, *picture.shape[:2])
                    f.write(_header(len(files), shape))
                f.write(np.ascontiguousarray(picture.transpose(2, 0, 1)).tobytes())
                count += 1
            if shape is None:
                raise DataError(f"data: none of the {len(files)} files in {printable(path, 300)} is a readable image")
            f.seek(0)
            f.write(_header(count, shape))
        os.replace(temporary, out)
    except OSError as e:
        raise DataError(f"cannot write {printable(out, 300)} ({e.strerror})", "free space, or another --out") from e
    finally:
        temporary.unlink(missing_ok=True)
    return count, skipped


def _header(count: int, shape: tuple[int, ...]) -> bytes:
    """The header of a .npy file; its length does not depend on the count, as NumPy reserves space."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)})
    return buffer.getvalue()
