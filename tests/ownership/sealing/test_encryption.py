"""A claim as one encrypted file: round trips, the stock tools, and archives that want to do harm."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest
from conftest import Sealed
from hypothesis import given, settings
from hypothesis import strategies as st

from ownership.claims.claim import Claim
from ownership.errors import ClaimError, ClaimIntegrityError, OwnershipError
from ownership.sealing.encryption import decrypt_claim, encrypt_claim, pack, unpack

needs_age = pytest.mark.skipif(shutil.which("age") is None, reason="the age tool is not installed")


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file as age-keygen writes it, and its public key."""
    made = pyrage.x25519.Identity.generate()
    path = tmp_path_factory.mktemp("identity") / "key.txt"
    path.write_text(f"# created: today\n# public key: {made.to_public()}\n{made}\n")
    return path, str(made.to_public())


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_round_trip_by_key(sealed: Sealed, identity: tuple[Path, str], tmp_path: Path) -> None:
    encrypt_claim(sealed.folder, tmp_path / "claim.age", recipients=[identity[1]])
    assert (tmp_path / "claim.age").stat().st_mode & 0o777 == 0o600
    back = decrypt_claim(tmp_path / "claim.age", tmp_path / "deep" / "claim", identity=identity[0])
    assert back.seal == Claim.load(sealed.folder).seal
    assert _files(tmp_path / "deep/claim") == _files(sealed.folder)
    assert all(p.stat().st_mode & 0o077 == 0 for p in (tmp_path / "deep/claim").rglob("*.*") if p.is_file())
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep/claim"]
    with pytest.raises(ClaimError, match="exists already"):
        decrypt_claim(tmp_path / "claim.age", tmp_path / "deep" / "claim", identity=identity[0])
    with pytest.raises(OwnershipError, match="exists already"):
        encrypt_claim(sealed.folder, tmp_path / "claim.age", recipients=[identity[1]])


def test_round_trip_by_passphrase(sealed: Sealed, identity: tuple[Path, str], tmp_path: Path) -> None:
    encrypt_claim(sealed.folder, tmp_path / "claim.age", passphrase="Geheim ✓")
    decrypt_claim(tmp_path / "claim.age", tmp_path / "claim", passphrase=lambda: "Geheim ✓")
    assert _files(tmp_path / "claim") == _files(sealed.folder)
    with pytest.raises(OwnershipError, match="cannot be decrypted"):
        decrypt_claim(tmp_path / "claim.age", tmp_path / "x", passphrase=lambda: "geheim")
    with pytest.raises(OwnershipError, match="cannot be encrypted"):
        encrypt_claim(sealed.folder, tmp_path / "x.age", passphrase="\ud800")
    with pytest.raises(OwnershipError, match="cannot be decrypted"):
        decrypt_claim(tmp_path / "claim.age", tmp_path / "x", identity=identity[0])
    assert not (tmp_path / "x").exists()


def test_nothing_of_the_claim_is_readable(sealed: Sealed, identity: tuple[Path, str], tmp_path: Path) -> None:
    encrypt_claim(sealed.folder, tmp_path / "claim.age", recipients=[identity[1]])
    data = (tmp_path / "claim.age").read_bytes()
    for content in _files(sealed.folder).values():
        assert content[:24] not in data
        assert content[len(content) // 2 :][:24] not in data


def test_who_can_open_it_must_be_said(sealed: Sealed, identity: tuple[Path, str], tmp_path: Path) -> None:
    for options in ({}, {"recipients": [identity[1]], "passphrase": "x"}):
        with pytest.raises(OwnershipError, match="to recipients, or with a passphrase"):
            encrypt_claim(sealed.folder, tmp_path / "x.age", **options)  # type: ignore[arg-type]
    for wrong in ("age1qqq", "", "ssh-ed25519 AAAA", "age1" + "q" * 58, "\ud800"):
        with pytest.raises(OwnershipError, match="no age public key"):
            encrypt_claim(sealed.folder, tmp_path / "x.age", recipients=[wrong])
    for text in ("", "# nothing\n", "AGE-SECRET-KEY-1QQQ\n", identity[1]):
        (tmp_path / "id").write_text(text or "\n")
        (tmp_path / "some.age").write_bytes(b"x")
        with pytest.raises(OwnershipError, match="holds no age secret keys"):
            decrypt_claim(tmp_path / "some.age", tmp_path / "x", identity=tmp_path / "id")


def test_a_tampered_claim_inside_is_not_kept(sealed: Sealed, identity: tuple[Path, str], tmp_path: Path) -> None:
    copy = shutil.copytree(sealed.folder, tmp_path / "claim")
    (copy / "key.json").write_bytes(b"{}\n")
    with pytest.raises(ClaimIntegrityError):
        encrypt_claim(copy, tmp_path / "x.age", recipients=[identity[1]])
    key = pyrage.x25519.Recipient.from_str(identity[1])
    (tmp_path / "y.age").write_bytes(pyrage.encrypt(pack(copy), [key]))
    with pytest.raises(ClaimIntegrityError, match=r"key\.json"):
        decrypt_claim(tmp_path / "y.age", tmp_path / "out", identity=identity[0])
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


@needs_age
def test_the_stock_tools_open_it(sealed: Sealed, identity: tuple[Path, str], tmp_path: Path) -> None:
    encrypt_claim(sealed.folder, tmp_path / "claim.age", recipients=[identity[1]])
    (tmp_path / "claim").mkdir()
    opened = subprocess.run(["age", "-d", "-i", identity[0], tmp_path / "claim.age"], check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", tmp_path / "claim"], input=opened.stdout, check=True)
    assert _files(tmp_path / "claim") == _files(sealed.folder)


@needs_age
@pytest.mark.parametrize("form", [["--format=gnu"], ["--format=ustar"], []])
def test_what_the_stock_tools_make_is_opened(
    sealed: Sealed, identity: tuple[Path, str], tmp_path: Path, form: list[str]
) -> None:
    tar = subprocess.run(["tar", "-c", *form, "-C", sealed.folder, "."], check=True, capture_output=True).stdout
    command = ["age", "-r", identity[1], "-o", tmp_path / "claim.age"]
    subprocess.run(command, input=tar, check=True)
    decrypt_claim(tmp_path / "claim.age", tmp_path / "claim", identity=identity[0])
    assert _files(tmp_path / "claim") == _files(sealed.folder)


def test_our_tar_is_a_tar(sealed: Sealed) -> None:
    data = pack(sealed.folder)
    assert data == pack(sealed.folder)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        read = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    assert read == unpack(data) == _files(sealed.folder)


def test_names_longer_than_a_header_field(tmp_path: Path) -> None:
    long = f"representations/{'n' * 80}.safetensors"
    for name in ("claim.json", long):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert set(unpack(pack(tmp_path))) == {"claim.json", long}
    (tmp_path / "representations" / ("m" * 110)).write_bytes(b"x")
    with pytest.raises(ClaimError, match="name is too long"):
        pack(tmp_path)


# hostile archives


def entry(name: str, content: bytes = b"x", *, form: int = tarfile.USTAR_FORMAT, **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(form) + content + bytes(-len(content) % 512)


GOOD = entry("claim.json")


def _patched(data: bytes, at: int, value: bytes) -> bytes:
    """A header with a field exchanged and its checksum made right."""
    header = data[:at] + value + data[at + len(value) : 512]
    total = sum(header) - sum(header[148:156]) + 8 * 32
    return header[:148] + b"%06o\0 " % total + header[156:] + data[512:]


HOSTILE = {
    "up": entry("../x"),
    "up inside": entry("a/../../x"),
    "absolute": entry("/etc/x"),
    "absolute by dots": entry("./../x"),
    "hidden": entry(".ssh"),
    "hidden inside": entry("seal/.x"),
    "dot": entry("a/./b"),
    "nothing": entry(""),
    "double slash": entry("a//b"),
    "backslash": entry("a\\b"),
    "drive": entry("C:x"),
    "line break": entry("a\nb"),
    "escape": entry("a\x1b[31m"),
    "twice": entry("a") + entry("a"),
    "twice by dots": entry("a") + entry("./a"),
    "symlink": entry("a", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": entry("a", b"", type=tarfile.LNKTYPE, linkname="claim.json"),
    "device": entry("a", b"", type=tarfile.CHRTYPE),
    "disk": entry("a", b"", type=tarfile.BLKTYPE),
    "pipe": entry("a", b"", type=tarfile.FIFOTYPE),
    "contiguous": entry("a", type=tarfile.CONTTYPE),
    "sparse": entry("a", type=tarfile.GNUTYPE_SPARSE),
    "long name": entry("a" * 300, form=tarfile.GNU_FORMAT),
    "pax": entry("ä" * 60, form=tarfile.PAX_FORMAT),
    "folder with content": entry("a", type=tarfile.DIRTYPE),
    "bomb": _patched(entry("a"), 124, b"77777777777\0"),
    "larger than it is": _patched(entry("a"), 124, b"00000004000\0"),
    "base 256": _patched(entry("a"), 124, b"\x80" + bytes(10) + b"\x01"),
    "negative": _patched(entry("a"), 124, b"\xff" * 12),
    "minus": _patched(entry("a"), 124, b"-0000000001\0"),
    "no size": _patched(entry("a"), 124, bytes(12)),
    "no UTF-8": _patched(entry("a"), 0, b"\xff\xfe"),
    "other magic": _patched(entry("a"), 257, b"xstar"),
    "checksum": entry("a")[:148] + b"000000\0 " + entry("a")[156:],
    "prefix up": _patched(entry("a"), 345, b"../.."),
    "no JSON of a claim": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(name: str) -> None:
    with pytest.raises(ClaimError):
        unpack((b"" if name == "no JSON of a claim" else GOOD) + HOSTILE[name] + bytes(1024))
    assert unpack(GOOD + bytes(1024)) == {"claim.json": b"x"}


def test_too_many_files() -> None:
    with pytest.raises(ClaimError):
        unpack(GOOD + b"".join(entry(f"f{i}", b"") for i in range(10_001)))


def test_the_table_is_hostile(tmp_path: Path) -> None:
    """What the reader refuses would do harm to a careless one: the link would be made, the path would lead outside."""
    (tmp_path / "in").mkdir()
    with tarfile.open(fileobj=io.BytesIO(HOSTILE["up"] + HOSTILE["symlink"] + bytes(1024)), mode="r:") as tar:
        for member in tar:
            tar.extract(member, tmp_path / "in", filter="fully_trusted")
    assert (tmp_path / "x").exists()
    assert (tmp_path / "in/a").is_symlink()


def accepted_or_refused(read: Callable[[], object]) -> None:
    try:
        read()
    except OwnershipError:
        return


@given(st.binary(max_size=1200))
@settings(max_examples=200, deadline=None)
def test_any_bytes(data: bytes) -> None:
    accepted_or_refused(lambda: unpack(data))
    accepted_or_refused(lambda: unpack(GOOD + data))


@given(st.integers(0, 511), st.binary(min_size=1, max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_header(at: int, value: bytes) -> None:
    accepted_or_refused(lambda: unpack(_patched(entry("a"), min(at, 512 - len(value)), value) + GOOD))


def test_any_age_file(sealed: Sealed, identity: tuple[Path, str], tmp_path: Path) -> None:
    encrypt_claim(sealed.folder, tmp_path / "claim.age", recipients=[identity[1]])
    good = (tmp_path / "claim.age").read_bytes()
    for at in (0, 10, 30, 100, 150, 190, 250, len(good) // 2, len(good) - 1):
        (tmp_path / "bad.age").write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(OwnershipError, match="cannot be decrypted"):
            decrypt_claim(tmp_path / "bad.age", tmp_path / "x", identity=identity[0])
    for data in (b"x", good[:200], good[: len(good) // 2], b"age-encryption.org/v1\n" * 3):
        (tmp_path / "bad.age").write_bytes(data)
        with pytest.raises(OwnershipError, match="cannot be decrypted"):
            decrypt_claim(tmp_path / "bad.age", tmp_path / "x", identity=identity[0])
    assert not (tmp_path / "x").exists()
