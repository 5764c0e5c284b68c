"""A claim as one encrypted file: a tar of its folder in the age format (age-encryption.org), for keeping and sending.

Any age tool opens it, `age -d claim.age | tar x`, so nobody is bound to Turnmark. What is inside a file from somebody
else is hostile until shown otherwise: plain files under plain names are taken, and only a claim that verifies is kept.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ownership.claims.claim import Claim
from ownership.errors import ClaimError, OwnershipError
from ownership.io.files import new_folder, read_bytes, refuse_existing, write_bytes
from ownership.io.text import printable

BLOCK = 512
MOST_FILES = 10_000
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


def encrypt_claim(folder: Path, out: Path, *, recipients: Sequence[str] = (), passphrase: str = "") -> None:
    """Writes a claim, sealed or not, to one encrypted file; the folder stays.

    Args:
        folder: the claim's; it is verified first.
        out: the file.
        recipients: age public keys (age1...), each of which can open it.
        passphrase: opens it, if there are no recipients.

    Raises:
        ClaimError: if the claim does not verify.
        OwnershipError: if there is nobody to encrypt to, a recipient is malformed, or `out` exists.
    """
    import pyrage

    if bool(recipients) == bool(passphrase):
        raise OwnershipError("encrypt to recipients, or with a passphrase", "--recipient age1..., or --passphrase")
    if out.exists():
        raise OwnershipError(f"{printable(out, 300)} exists already", "choose another --out, or delete it first")
    Claim.load(folder)
    keys = []
    for recipient in recipients:
        try:
            keys.append(pyrage.x25519.Recipient.from_str(recipient))
        except (pyrage.RecipientError, ValueError) as e:
            raise OwnershipError(f"{printable(recipient)} is no age public key", "age1..., from age-keygen") from e
    data = pack(folder)
    try:
        encrypted: bytes = pyrage.encrypt(data, keys) if keys else pyrage.passphrase.encrypt(data, passphrase)
    except (pyrage.EncryptError, ValueError) as e:  # a passphrase that is no text
        raise OwnershipError(
            f"the claim cannot be encrypted ({printable(e)})", "another passphrase or recipient"
        ) from e
    write_bytes(out, encrypted, secret=True)


def decrypt_claim(
    file: Path, out: Path, *, identity: Path | None = None, passphrase: Callable[[], str] = lambda: ""
) -> Claim:
    """Opens an encrypted claim into a new folder, whole or not at all, and returns it.

    Args:
        file: the encrypted file.
        out: the folder to make.
        identity: file with age secret keys (AGE-SECRET-KEY-...); None: with a passphrase.
        passphrase: called for it.

    Raises:
        OwnershipError: if it cannot be decrypted.
        ClaimError: if what is inside is no claim that verifies.
    """
    import pyrage

    refuse_existing(out)
    data = read_bytes(file, OwnershipError, "encrypted claim")
    keys = None if identity is None else _identities(identity)
    try:
        plain: bytes = pyrage.passphrase.decrypt(data, passphrase()) if keys is None else pyrage.decrypt(data, keys)
    except (pyrage.DecryptError, ValueError) as e:
        raise OwnershipError(
            f"{printable(file, 300)} cannot be decrypted", "wrong passphrase or key, no age file, or damaged"
        ) from e
    with new_folder(out) as new:
        for name, content in unpack(plain).items():
            write_bytes(new / name, content, secret=True)
        return Claim.load(new)


def pack(folder: Path) -> bytes:
    """Returns the files of a folder as a tar (ustar): in order, without dates and owners."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
            name = path.relative_to(folder).as_posix()
            if not NAME.fullmatch(name):
                raise ClaimError(f"the claim's folder holds {printable(name)}", "that is none of a claim's files")
            data = read_bytes(path, ClaimError, "claim")
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            try:
                tar.addfile(entry, io.BytesIO(data))
            except ValueError as e:
                raise ClaimError(
                    f"{printable(name)}: the name is too long for an archive", "rename that encoder"
                ) from e
    return out.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """Returns the files in a tar (ustar; what GNU tar writes by default, too), by name.

    Only plain files and folders; no links, devices, sparse files, long-name records, dot names or paths that lead
    outside. Nothing is larger than the bytes that are there.

    Raises:
        ClaimError: for anything else.
    """
    files: dict[str, bytes] = {}
    at = 0
    while at + BLOCK <= len(data) and any(header := data[at : at + BLOCK]):
        name, kind, size = _entry(header)
        at += BLOCK
        if size > len(data) - at:
            raise ClaimError(f"the archive is cut short in {printable(name)}", "fetch it again")
        if kind == "file":
            if not NAME.fullmatch(name) or name in files or len(files) >= MOST_FILES:
                raise ClaimError(f"the archive holds a file called {printable(name)}", "no claim has one, or another")
            files[name] = data[at : at + size]
        at += -(-size // BLOCK) * BLOCK
    if "claim.json" not in files:
        raise ClaimError("the archive holds no claim", "it was made by another program, or damaged")
    return files


def _entry(header: bytes) -> tuple[str, str, int]:
    """Name, "file" or "folder", and size, from the header of one entry."""
    damaged = ClaimError("what was decrypted is no tar of a claim", "it was made by another program, or damaged")
    try:
        stated = _octal(header[148:156])
        size = _octal(header[124:136])
        name, prefix = (part.split(b"\x00")[0].decode() for part in (header[:100], header[345:500]))
    except ValueError as e:
        raise damaged from e
    if stated != sum(header) - sum(header[148:156]) + 8 * ord(" ") or header[257:262] != b"ustar":
        raise damaged
    if header[263:265] == b"00" and prefix:  # POSIX; GNU tar keeps dates there
        name = f"{prefix}/{name}"
    name = name.removeprefix("./")
    kind = {b"0": "file", b"\x00": "file", b"5": "folder"}.get(header[156:157])
    if kind is None or (kind == "folder" and size):
        raise ClaimError(f"the archive holds {printable(name)}, which is no plain file", "links and devices: refused")
    return name, kind, size


def _octal(field: bytes) -> int:
    digits = field.strip(b" \x00")
    if not digits or set(digits) - set(b"01234567"):
        raise ValueError("no octal number")
    return int(digits, 8)


def _identities(path: Path) -> list[object]:
    import pyrage

    lines = read_bytes(path, OwnershipError, "identity").decode(errors="replace").splitlines()
    try:
        found = [pyrage.x25519.Identity.from_str(x.strip()) for x in lines if x.strip() and not x.startswith("#")]
    except (pyrage.IdentityError, ValueError) as e:
        raise OwnershipError(
            f"identity: {printable(path, 300)} holds no age secret keys", "AGE-SECRET-KEY-1..., from age-keygen"
        ) from e
    if not found:
        raise OwnershipError(f"identity: {printable(path, 300)} holds no age secret keys", "from age-keygen")
    return found
