"""Where pictures lie: in folders, or in WebDataset shards. Only names and headers are read here."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from ownership.errors import DataError
from ownership.io.text import printable

SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff",
    ".avif", ".heic", ".heif", ".jp2", ".jxl",
}  # fmt: skip
"""Names of pictures. Whether Pillow can open one is another question: that it cannot is said, never passed over."""

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
LABEL_BYTES = 20
"""Largest size of a `.cls` member that is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture that can be read."""

    name: str
    group: str  # its folder: its class
    read: Callable[[], bytes]
    label: int | None = None  # of a shard


def is_picture(name: str) -> bool:
    """Return whether a file's name is that of a picture.

    >>> is_picture("a.JPG"), is_picture("a.txt")
    (True, False)
    """
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def is_shard(name: str) -> bool:
    """Return whether a file's name is that of a shard, which may be a compressed one."""
    return name.lower().endswith((".tar", *COMPRESSED))


def files_in(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, in no order. Links are followed; what systems and editors hide is left out.

    Raises:
        DataError: if a folder cannot be read.
    """
    yield from _walk(folder, frozenset())


def find_images(path: Path) -> list[Picture]:
    """Return the image files of a folder in order of their names, or of a shard or a folder of shards in their order.

    Raises:
        DataError: if there are none, a shard cannot be read, or a folder holds both.
    """
    if not path.exists():
        raise DataError(f"data: {printable(path, 300)} does not exist", "check the path")
    found = sorted(files_in(path)) if path.is_dir() else [path]
    shards = [p for p in found if is_shard(p.name)]
    pictures = [p for p in found if is_picture(p.name)] if path.is_dir() else []
    if shards and pictures:
        raise DataError(
            f"data: {printable(path, 300)} holds shards ({printable(shards[0].name)}) and pictures "
            f"({printable(pictures[0].name)})",
            "give one of the two a folder of its own",
        )
    files = [Picture(name=str(p), group=str(p.parent), read=p.read_bytes) for p in pictures]
    for shard in shards:
        files += _in_shard(shard)
    if not files:
        raise DataError(
            f"data: {printable(path, 300)} holds no images", f"expected {', '.join(sorted(SUFFIXES))}, or .tar shards"
        )
    return files


def _walk(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder in which it lies
        return
    try:
        with os.scandir(folder) as entries:
            listed = [entry for entry in entries if not _is_hidden(entry.name)]
    except OSError as e:
        raise DataError(f"data: {printable(folder, 300)} cannot be read ({e.strerror})", "check its permissions") from e
    for entry in listed:
        if entry.is_dir():
            yield from _walk(Path(entry.path), above | {real})
        elif entry.is_file() or (
            entry.is_symlink() and not os.path.exists(entry.path)
        ):  # no broken link is passed over
            yield Path(entry.path)


def _is_hidden(name: str) -> bool:
    """Return whether a name is one of `.ipynb_checkpoints`, `._photo.png`, `.DS_Store`, `__MACOSX`, ..."""
    return (name.startswith(".") and name != "..") or name == "__MACOSX"


def _in_shard(shard: Path) -> list[Picture]:
    if shard.name.lower().endswith(COMPRESSED):
        raise DataError(
            f"{printable(shard, 300)} is a compressed shard", "unpack it to .tar: its parts are read in place"
        )
    last, labels, members = "its beginning", dict[str, int](), list[tarfile.TarInfo]()
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                last = member.name
                if not member.isfile() or any(map(_is_hidden, PurePosixPath(member.name).parts)):
                    continue
                sample, kind = _sample(member.name)
                if kind == "cls" and member.size <= LABEL_BYTES and (content := archive.extractfile(member)):
                    labels |= _label(sample, content.read())
                elif is_picture(member.name):
                    members.append(member)
            ends = archive.offset
        end = _part(shard, ends, tarfile.BLOCKSIZE)
    except (tarfile.TarError, OSError, ValueError) as e:
        raise _torn(shard, last) from e
    if end != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end, too
        raise _torn(shard, last)
    return [
        Picture(
            name=f"{shard.name}/{m.name}",
            group="",
            read=partial(_part, shard, m.offset_data, m.size),
            label=labels.get(_sample(m.name)[0]),
        )
        for m in _without_masks(members)
    ]


def _torn(shard: Path, last: str) -> DataError:
    return DataError(
        f"{printable(shard, 300)} is not a readable shard: it is cut off or damaged after {printable(last)}",
        "fetch it again",
    )


def _sample(name: str) -> tuple[str, str]:
    """Return a member's sample, its path up to the first dot of the name, and what it is of it, by WebDataset's rule.

    >>> _sample("a.b/0001.seg.png")
    ('a.b/0001', 'seg.png')
    """
    path = PurePosixPath(name)
    stem, _, kind = path.name.partition(".")
    return str(path.with_name(stem)), kind.lower()


def _without_masks(members: Sequence[tarfile.TarInfo]) -> list[tarfile.TarInfo]:
    """Return members without those like `N.seg.png` whose sample has an image `N.png`."""
    with_image = {sample for sample, kind in (_sample(m.name) for m in members) if "." not in kind}
    return [m for m in members if "." not in _sample(m.name)[1] or _sample(m.name)[0] not in with_image]


def _label(sample: str, content: bytes) -> dict[str, int]:
    text = content.strip()
    return {sample: int(text)} if text.isdigit() and len(text) < 10 else {}


def _part(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as f:
        f.seek(offset)
        return f.read(size)
