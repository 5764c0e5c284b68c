"""Image files, in folders or in WebDataset shards, as one uint8 array, in memory or in a file to be memory-mapped.

Decoding runs in threads (Pillow releases the interpreter lock) and only once: training reads pixels, not files.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from watermark_training.image_sources import Picture, find_images
from watermark_training.pictures import decode

CHUNK = 256
"""Image files decoded at a time."""


def decoded_images(
    files: list[Picture], size: int | None, on_bad_image: OnBadImage, skipped: list[str], progress: Progress = silent
) -> Iterator[tuple[Picture, NDArray[np.uint8]]]:
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
            for file, found in zip(chunk, _decoded(pool, chunk, size), strict=True):
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


def _decoded(pool: ThreadPoolExecutor, files: list[Picture], size: int | None) -> list[NDArray[np.uint8] | DataError]:
    """Decode files in threads, without Pillow's warnings: what matters of them is said of the picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(pool.map(partial(decode, size=size), files))


def _labels(files: list[Picture]) -> Tensor | None:
    """Return the labels that shards state of every image, or the classes that are folders; None for one folder."""
    stated = [file.label for file in files if file.label is not None]
    if len(stated) == len(files):
        return torch.tensor(stated)
    groups = {group: i for i, group in enumerate(sorted({file.group for file in files}))}
    return torch.tensor([groups[file.group] for file in files]) if len(groups) > 1 else None


def read_images(
    path: Path, size: int | None, *, on_bad_image: OnBadImage, skipped: list[str]
) -> tuple[Tensor, Tensor | None]:
    """Return the images of a folder or of shards as `(n, 3, h, w)` uint8; sub-folders are classes, in shards `.cls`.

    Raises:
        DataError: if there are none, one is unreadable or has another size.
    """
    found = list(decoded_images(find_images(path), size, on_bad_image, skipped))
    if not found:
        raise DataError(f"data: none of the {len(skipped)} files in {printable(path, 300)} is a readable image")
    labels = _labels([file for file, _ in found])
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
