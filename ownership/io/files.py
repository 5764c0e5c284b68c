"""Read and write files: no file is half-written, and every failure is one clear line."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ownership.errors import OwnershipError
from ownership.io.canonical import canonical_json, parse_json
from ownership.io.text import printable


def read_bytes(path: Path, error: type[OwnershipError], what: str) -> bytes:
    """Return the content of a regular file, read once.

    Args:
        path: The file.
        error: Class of the exception to raise.
        what: Role of the file, for messages ("suspect", "claim").

    Raises:
        OwnershipError: `error`, if the path is missing, no regular file, unreadable or empty.
    """
    shown = printable(path, 300)
    try:
        if path.is_dir():
            raise error(f"{what}: {shown} is a directory, not a file", "give the file itself")
        if not path.exists():
            raise error(f"{what}: {shown} does not exist", "check the path")
        if not path.is_file():
            raise error(f"{what}: {shown} is not a regular file", "give a regular file, not a device or a pipe")
        data = path.read_bytes()
    except OSError as e:
        raise error(f"{what}: {shown} cannot be read ({e.strerror})", "check the permissions") from e
    if not data:
        raise error(f"{what}: {shown} is empty (0 bytes)", "the copy or download may have failed; fetch it again")
    return data


def write_bytes(path: Path, data: bytes, *, secret: bool = False) -> None:
    """Write a file atomically: to a temporary name beside `path`, which is then renamed.

    Args:
        path: The file; its folder is created if missing.
        data: The content.
        secret: Whether only the owner may read the file (mode 0600).

    Raises:
        OwnershipError: If the folder or the file cannot be written.
    """
    write_together({path: data}, secret=secret)


def write_together(files: Mapping[Path, bytes], *, secret: bool = False) -> None:
    """Replace a primary file and the files derived from it, crash-safely.

    A derived file never coexists with an older primary file. All files are written to temporary names; then the old
    derived files are removed, and all new files are renamed into place, the primary one first.

    Args:
        files: Path -> content; the primary file is the first entry.
        secret: Whether only the owner may read the files (mode 0600).

    Raises:
        OwnershipError: If a file cannot be written; the old files are then unchanged.
    """
    temporary: dict[Path, str] = {}
    path = next(iter(files))
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary[path] = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            with os.fdopen(descriptor, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.chmod(temporary[path], 0o600 if secret else 0o666 & ~_umask())
        for path in list(files)[1:]:
            path.unlink(missing_ok=True)
        for path in files:
            os.replace(temporary[path], path)
    except OSError as e:
        raise OwnershipError(
            f"cannot write {printable(path, 300)} ({e.strerror})", "choose another --out, or free space"
        ) from e
    finally:
        for left in temporary.values():
            Path(left).unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder` to write into, and rename it to `folder` at the end.

    Args:
        folder: The folder to make; an empty folder is replaced.

    Raises:
        OwnershipError: If the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder)
        with _temporary_folder(folder) as temporary:
            yield temporary
            _move(temporary, folder)
    except OSError as e:
        raise OwnershipError(
            f"cannot write {printable(folder, 300)} ({e.strerror})", "write elsewhere, or free space"
        ) from e


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder` that this process holds, and remove it at the end."""
    with ExitStack() as stack:
        for _ in range(100):
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            stack.callback(shutil.rmtree, temporary, ignore_errors=True)
            if sys.platform == "win32":
                break
            with suppress(OSError):  # another run took it for a leftover before it was held
                stack.enter_context(_held(temporary))
                if temporary.exists():
                    break
        yield temporary


def _move(temporary: Path, folder: Path) -> None:
    """Rename a folder to a path at which there is no folder, or an empty one."""
    try:
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    except OSError as e:
        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise OwnershipError(
            f"{printable(folder, 300)} was written by another run meanwhile", "that folder is complete; look at it"
        ) from e


def clear_leftovers(path: Path) -> None:
    """Remove the temporary files and folders that killed runs left beside `path`.

    A folder that a running process holds stays. Files are removed, so no other process may be writing `path`.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        if left.is_symlink() or not left.is_dir():
            left.unlink(missing_ok=True)
            continue
        with suppress(OSError), _held(left):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock a folder until the process ends at the latest; raise OSError if another process holds it."""
    if sys.platform == "win32":  # no such locks: temporary files stay
        raise OSError("cannot be locked")
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def alone_in(folder: Path, error: type[OwnershipError]) -> Iterator[None]:
    """Keep a second run out of a folder; the lock ends with the process, however the process ends.

    Args:
        folder: The folder; it is created if missing, and removed at the end if it is empty.
        error: Class of the exception to raise.

    Raises:
        OwnershipError: `error`, if another run holds the folder.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what training writes is secret
    except OSError as e:
        raise error(f"cannot write {printable(folder, 300)} ({e.strerror})", "choose another --out") from e
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as e:
        raise error(f"another run is writing into {printable(folder, 300)}", "wait, or choose another --out") from e
    try:
        yield
    finally:
        (folder / ".lock").unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            folder.rmdir()


def write_json(path: Path, value: object) -> None:
    """Write `value` as canonical JSON, atomically."""
    write_bytes(path, canonical_json(value))


def read_json(path: Path, error: type[OwnershipError], what: str) -> dict[str, Any]:
    """Return the JSON object in a file.

    Args:
        path: The file.
        error: Class of the exception to raise.
        what: Role of the file, for messages.

    Raises:
        OwnershipError: `error`, if the file is unreadable or holds no JSON object.
    """
    return parse_json(read_bytes(path, error, what), error, f"{what}: {printable(path.name)}")


def finished(folder: Path, marker: str, config: dict[str, Any]) -> bool:
    """Return whether `folder/marker` is JSON with every entry of `config`: the work was finished by an earlier run."""
    path = folder / marker
    if not path.is_file():
        return False
    stored = read_json(path, OwnershipError, "earlier run")
    return all(stored.get(k) == v for k, v in json.loads(canonical_json(config)).items())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def refuse_existing(folder: Path, error: type[OwnershipError]) -> None:
    """Raise `error` if `folder` exists and is not an empty folder: results are never overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise error(f"{printable(folder, 300)} exists already", "choose another --out, or delete it first")
