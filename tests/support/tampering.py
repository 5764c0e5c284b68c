"""What tests of tampering share: a change to files, the places of a JSON value, and a bench that judges changes."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support import independent_verifier
from support.claims import Sealed
from support.sampling import IN_FULL

from ownership.errors import OwnershipError
from ownership.io.checks import Verification

Change = dict[str, bytes | None]
"""File -> new bytes, or None where it is removed."""

Files = dict[str, bytes]
INTRUDER = Ed25519PrivateKey.generate()


def files_of(folder: Path) -> Files:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@dataclass
class Bench:
    """A copy of a sealed claim or report that a change is done to, judged, and undone."""

    folder: Path
    files: Files
    older: Files  # something else of the same kind, sealed with the same key
    sealed: Sealed
    verify: Callable[..., Verification]
    independent: Callable[[Path, Path | None, Path | None], None]
    cases: int = 0

    def judge(self, change: Change, **options: Any) -> OwnershipError | None:
        """What verifying says; None: nothing. With no options the independent verifier is asked, too."""
        self._write(change)
        try:
            self.verify(self.folder, **options)
            found = None
        except OwnershipError as e:
            found = e
        try:
            if not set(options) - {"public_key"}:
                agreed = self._independent(change, options.get("public_key")) == (found is None)
                assert agreed, (found, list(change))
        finally:
            self._write({name: self.files.get(name) for name in change})
        return found

    def refuses(self, cases: Iterator[tuple[str, Change, str]], at_least: int, **options: Any) -> None:
        """Assert for every (name, change, message) that it is refused with 6 and that message.

        Of tables of a hundred cases and more (`at_least`), each fourth is judged unless all tests run in full.
        """
        wrong, count, every = [], 0, 1 if IN_FULL or at_least < 100 else 4
        for name, change, message in cases:
            count += 1
            if count % every:
                continue
            found = self.judge(change, **options)
            if found is None or found.exit_code != 6 or not re.search(message, found.message):
                wrong.append(f"{name}: {found!r}, expected {message!r}")
        self.cases += count
        assert not wrong, f"{len(wrong)} of {count}: " + "\n".join(wrong[:10])
        assert count >= at_least

    def _independent(self, change: Change, owner: Path | None) -> bool:
        stamped = any(name.startswith("seal/timestamps/") for name in change)  # else OpenSSL would be asked for nothing
        try:
            self.independent(self.folder, owner, self.folder.parent / "roots.pem" if stamped else None)
        except (independent_verifier.Bad, KeyError, TypeError, ValueError, AttributeError):
            return False
        return True

    def _write(self, change: Change) -> None:
        for name, data in change.items():
            path = self.folder / name
            if data is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(data)


def flipped(data: bytes, at: int, bit: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all fields and entries of a JSON value."""
    if path:
        yield path
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield from places(inner, (*path, step))


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + chr(ord(value[-1]) ^ 1) if value else "x"
    if isinstance(value, list):
        return [*value, "x"]
    return {**value, "x": 1}


def edited(content: Any) -> Iterator[tuple[str, Any]]:
    """Every field changed, and every field removed, one at a time."""
    for path in places(content):
        for how in ("changed", "removed"):
            new = copy.deepcopy(content)
            at = new
            for step in path[:-1]:
                at = at[step]
            if how == "changed":
                at[path[-1]] = other(at[path[-1]])
            else:
                del at[path[-1]]
            yield f"{'/'.join(map(str, path))} {how}", new
