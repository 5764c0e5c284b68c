"""Copy a suspect once into a private folder and hash the bytes on the way, so that the hashed bytes are loaded."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ownership.errors import OwnershipError, SuspectError
from ownership.io.canonical import sha256
from ownership.io.text import printable

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "encoder.safetensors", "pytorch_model.bin", "model.onnx", "encoder.onnx")
"""Names of weights in a model's folder, in the order in which they are looked for."""
INDEX = "model.safetensors.index.json"
"""Index of a model whose weights are in several files, as transformers and timm write it."""
MOST_SHARDS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectCopy:
    """The private copy of a suspect."""

    name: str  # of the main file in the private folder
    size: int  # total bytes
    files: dict[str, str]  # name -> SHA-256

    @property
    def sha256(self) -> str:
        """SHA-256 of the only file, or of the sorted lines that `sha256sum` prints for several files."""
        if len(self.files) == 1:
            return next(iter(self.files.values()))
        return sha256("".join(f"{d}  {n}\n" for n, d in sorted(self.files.items())).encode())


def copy_suspect(path: Path, target: Path, limit: int) -> SuspectCopy:
    """Copy a file, or the configuration and the weights of a folder.

    Args:
        path: a regular file, or a model's folder in the layout of model hubs.
        target: an empty folder.
        limit: most bytes of a file.

    Raises:
        SuspectError: if the file is missing, not regular, empty or too large.
        OwnershipError: if the copy cannot be written.
    """
    if not path.is_dir():
        digest, size = _copy(path, target / "suspect", limit)
        return SuspectCopy(name="suspect", size=size, files={path.name: digest})
    weights = weights_of(path)
    if weights.name == INDEX:
        return _copy_shards(path, target, limit)
    files, total = {}, 0
    for source in (path / CONFIG, path / "preprocessor_config.json", weights):
        if source.is_file():
            files[source.name], size = _copy(source, target / source.name, limit)
            total += size
    return SuspectCopy(name=weights.name, size=total, files=files)


def weights_of(folder: Path) -> Path:
    """Return the file of weights in a model's folder, or their index if they are in several.

    Raises:
        SuspectError: if there is none.
    """
    found = next((folder / name for name in (*WEIGHTS, INDEX) if (folder / name).is_file()), None)
    if found is None:
        raise SuspectError(
            f"suspect: {printable(folder, 300)} is a folder without weights", f"expected one of {', '.join(WEIGHTS)}"
        )
    return found


def _copy_shards(path: Path, target: Path, limit: int) -> SuspectCopy:
    """Copy the index of a model in several safetensors files, and these: the folder's files with such names."""
    files, total = {}, 0
    shards = sorted(x for x in path.glob("*.safetensors") if x.is_file())
    if not 1 <= len(shards) <= MOST_SHARDS:
        raise SuspectError(f"suspect: {INDEX} beside {len(shards)} safetensors files", f"expected 1 to {MOST_SHARDS}")
    for source in (path / CONFIG, path / "preprocessor_config.json", path / INDEX, *shards):
        if source.is_file():
            files[source.name], size = _copy(source, target / source.name, limit)
            total += size
    return SuspectCopy(name=INDEX, size=total, files=files)


def copy_external_data(
    copied: SuspectCopy, source: Path, wanted: Sequence[object], target: Path, limit: int
) -> SuspectCopy:
    """Copy external data: files beside the suspect, by plain name, no links but those of a hub's cache to its blobs.

    Raises:
        SuspectError: if a name leads out of the folder, or there is no such file.
    """
    folder = source if source.is_dir() else source.parent
    files, total = dict(copied.files), copied.size
    for name in wanted:
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise SuspectError(
                f"suspect: external data refused: {printable(name)} leaves the model's folder",
                "export with the weights inside",
            )
        if not (folder / name).exists() or name in files or name == copied.name:
            raise SuspectError(
                f"suspect: external data refused: {printable(name)} is not beside the model", "fetch it as well"
            )
        files[name], size = _copy(_without_link(folder / name), target / name, limit, links=False)
        total += size
    return replace(copied, files=files, size=total)


def _without_link(file: Path) -> Path:
    """Return the blob to which a link in a Hugging Face cache leads; any other path as it is.

    The cache has a fixed layout: `models--NAME/snapshots/REVISION/...` of links into `models--NAME/blobs`. The link is
    read, not followed, so that no link on the way leads elsewhere.
    """
    folder = file.parent.resolve()
    snapshots = next((p for p in (folder, *folder.parents) if p.name == "snapshots"), None)
    if not file.is_symlink() or snapshots is None or not snapshots.parent.name.startswith("models--"):
        return file
    blobs = snapshots.with_name("blobs")
    leads_to = Path(os.path.normpath(folder / os.readlink(file)))
    return leads_to if leads_to.parent == blobs and not blobs.is_symlink() else file


def _copy(source: Path, target: Path, limit: int, *, links: bool = True) -> tuple[str, int]:
    """Copy one regular file; return its SHA-256 and size."""
    shown = printable(source, 300)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if not links:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        opened = os.open(source, flags)
    except OSError as e:
        reason = "does not exist" if isinstance(e, FileNotFoundError) else f"cannot be read ({e.strerror})"
        raise SuspectError(f"suspect: {shown} {reason}", "check the path") from e
    with open(opened, "rb", buffering=0) as f:
        about = os.fstat(f.fileno())
        if not stat.S_ISREG(about.st_mode) or (not links and about.st_nlink != 1):
            raise SuspectError(f"suspect: {shown} is not a regular file", "give a regular file, not a device or a link")
        if about.st_size == 0:
            raise SuspectError(f"suspect: {shown} is empty (0 bytes)", "the copy or download failed; fetch it again")
        if about.st_size > limit:
            raise SuspectError(
                f"suspect: {shown} has {about.st_size / 2**30:.1f} GiB, the limit is {limit / 2**30:.1f}",
                "raise --max-model-gib",
            )
        digest, size = hashlib.sha256(), 0
        try:
            with target.open("xb") as out:
                while piece := f.read(1 << 20):
                    size += len(piece)
                    if size > limit:
                        raise SuspectError(
                            f"suspect: {shown} grows while it is read", "give a file that does not change"
                        )
                    digest.update(piece)
                    out.write(piece)
            target.chmod(0o400)
        except OSError as e:
            raise OwnershipError(
                f"no private copy of the suspect can be made ({e.strerror})",
                "free space, or set TMPDIR",
            ) from e
    return digest.hexdigest(), size
