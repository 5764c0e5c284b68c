"""A generated table of tampering with a sealed claim: each line is refused, with exit code 6 and its own message.

A change is a dictionary, file -> new bytes, or None where the file is removed. The independent verifier must agree.
Fields are in test_verify_fields.py.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from support import independent_verifier
from support.sealed_claims import PUBLIC, SALTS, STATEMENT
from support.tampering import INTRUDER, Bench, Change, files_of, flipped
from support.tsa import make_authority

from ownership.attestation.keys import public_pem
from ownership.attestation.timestamps import load_roots, parse_date, read_reply
from ownership.errors import ClaimIntegrityError
from ownership.io.canonical import sha256
from ownership.sealing.create import seal_claim
from ownership.sealing.verify import verify_claim


@pytest.fixture
def bench(claim_bench: Bench) -> Bench:
    return claim_bench


def message_about(name: str) -> str:
    """What is said when a file of the claim is not what it was."""
    if name.startswith("seal/timestamps/"):
        return "is not what its name says"
    own = {
        "claim.json": r"claim\.json does not match its own digest",
        STATEMENT: r"statement\.dsse\.json",
        PUBLIC: r"owner\.pub is no public key|owner\.pub holds more|names the key",
        SALTS: r"salts",
    }
    return own.get(name, re.escape(name) + " does not match its digest")


def test_good_claims_are_good(bench: Bench) -> None:
    assert bench.judge({}) is None
    assert bench.judge({}, public_key=bench.sealed.public) is None
    assert bench.judge({}, roots=bench.sealed.roots, before=bench.sealed.later) is None
    independent_verifier.verify(bench.folder, bench.sealed.public)
    for path in (bench.folder / "seal/timestamps").iterdir():  # openssl stands in for the other half
        assert any(a.accepts(path, bench.folder / STATEMENT) for a in (bench.sealed.first, bench.sealed.second))


def test_one_flipped_byte(bench: Bench) -> None:
    def cases() -> Iterator[tuple[str, Change, str]]:
        for name, data in bench.files.items():
            for at in sorted({0, len(data) // 3, 2 * len(data) // 3, len(data) - 1}):
                yield f"{name}@{at}", {name: flipped(data, at)}, message_about(name)

    bench.refuses(cases(), at_least=4 * 20)


@pytest.mark.sampled
def test_every_byte_of_key_and_statement(bench: Bench) -> None:
    def cases() -> Iterator[tuple[str, Change, str]]:
        for name in (PUBLIC, STATEMENT):
            for at in range(0, len(bench.files[name]), 1 if name == PUBLIC else 9):
                yield f"{name}@{at}", {name: flipped(bench.files[name], at)}, message_about(name)

    bench.refuses(cases(), at_least=200)


def test_a_removed_or_cut_file(bench: Bench) -> None:
    def cases() -> Iterator[tuple[str, Change, str]]:
        for name, data in bench.files.items():
            if not name.startswith("seal/timestamps/"):
                missing = r"claim\.json does not exist" if name == "claim.json" else "is missing"
                yield f"without {name}", {name: None}, missing
                yield f"empty {name}", {name: b""}, r"is empty|does not match its own digest"
            yield f"half {name}", {name: data[: len(data) // 2]}, message_about(name)
            yield f"longer {name}", {name: data + b"\n"}, message_about(name)
        yield "no seal", {name: None for name in bench.files if name.startswith("seal/")}, "owner.pub is missing"
        yield "an extra file", {"notes.txt": b"x"}, r"notes\.txt is not covered"

    def covered() -> Iterator[tuple[str, Change, str]]:
        return ((n, c, m) for n, c, m in cases() if n != "an extra file")

    bench.refuses(covered(), at_least=80)
    bench.refuses(((n, c, m) for n, c, m in cases() if n == "an extra file"), 1, roots=bench.sealed.roots)


@pytest.mark.sampled
def test_two_swapped_files(bench: Bench) -> None:
    def cases() -> Iterator[tuple[str, Change, str]]:
        for a, b in combinations(bench.files, 2):
            if bench.files[a] != bench.files[b]:
                yield f"{a} <-> {b}", {a: bench.files[b], b: bench.files[a]}, r"\S"

    bench.refuses(cases(), at_least=200)


def test_replay_of_an_older_claim(bench: Bench) -> None:
    """The same owner's earlier claim, sealed with the same key: no part of it passes for one of this claim."""
    own = {
        STATEMENT: "it is of another claim",
        SALTS: "salts do not lead to the sealed root",
        "claim.json": "it is of another claim",
    }

    def cases() -> Iterator[tuple[str, Change, str]]:
        for name, data in bench.older.items():
            if name.startswith("seal/timestamps/"):
                yield name, {name: data}, "does not cover this seal"
            elif data != bench.files[name]:
                yield name, {name: data}, own.get(name, message_about(name))
        for group in ({STATEMENT, SALTS}, {STATEMENT, SALTS, PUBLIC}):
            yield "its seal", {name: bench.older[name] for name in group}, "it is of another claim"
        everything_else: Change = {n: d for n, d in bench.older.items() if not n.startswith("seal/")}
        yield "all but the seal", everything_else, "it is of another claim"

    bench.refuses(cases(), at_least=17)


def test_the_intruders_own_seal(bench: Bench, claim_folder: Path, tmp_path: Path) -> None:
    """A good seal by someone else: only the owner's public key, from the owner, tells."""
    mine = shutil.copytree(claim_folder, tmp_path / "claim")
    seal_claim(mine, INTRUDER)
    forged = files_of(mine)
    change: Change = {name: forged.get(name) for name in bench.files if name.startswith("seal/")}
    assert bench.judge(change) is None
    bench.refuses(iter([("resealed", change, "not with the owner's")]), 1, public_key=bench.sealed.public)
    (tmp_path / "other.pub").write_bytes(public_pem(INTRUDER.public_key()))
    bench.refuses(iter([("wrong key", {}, "not with the owner's")]), 1, public_key=tmp_path / "other.pub")


def test_the_public_key_exchanged(bench: Bench) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    def pem(key: Any) -> bytes:
        return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    own, der = bench.files[PUBLIC], INTRUDER.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    strange = [ec.generate_private_key(ec.SECP256R1()), ed448.Ed448PrivateKey.generate()]
    strange.append(rsa.generate_private_key(65537, 2048))  # type: ignore[arg-type]

    def cases() -> Iterator[tuple[str, Change, str]]:
        yield "another", {PUBLIC: public_pem(INTRUDER.public_key())}, "names the key"
        for key in strange:
            yield type(key).__name__, {PUBLIC: pem(key)}, "another algorithm"
        yield "two", {PUBLIC: own + public_pem(INTRUDER.public_key())}, "more than a public key"
        yield "DER", {PUBLIC: der}, "no public key"

    bench.refuses(cases(), at_least=6)


def _as_stored(reply: bytes) -> Change:
    return {f"seal/timestamps/{sha256(reply)}.tsr": reply}


def test_timestamps(bench: Bench, tmp_path: Path) -> None:
    sealed = bench.sealed
    (first,) = (r for n, r in bench.files.items() if n.endswith(".tsr") and b"First" in r)
    gone: Change = {name: None for name in bench.files if name.endswith(".tsr")}
    (other_data,) = (r for n, r in bench.older.items() if n.endswith(".tsr"))
    refusal = b"\x30\x05\x30\x03\x02\x01\x02"  # status 2 and no token

    def cases() -> Iterator[tuple[str, Change, str]]:
        yield "of other data", _as_stored(other_data), "does not cover this seal"
        yield "a refusal", _as_stored(refusal), "authority refused|no timestamp reply|is malformed"
        yield "rubbish", _as_stored(b"rubbish"), "no timestamp reply in strict DER"
        yield "renamed", {"seal/timestamps/x.tsr": first}, "is not what its name says"

    bench.refuses(cases(), at_least=4)
    bench.refuses(cases(), at_least=4, roots=sealed.roots)
    late = {"roots": sealed.roots, "before": parse_date("2020-01-01")}
    bench.refuses(iter([("after the dispute", {}, r"not shown to be earlier.*first timestamp is of")]), 1, **late)
    in_time = {"roots": sealed.roots, "before": sealed.later}
    bench.refuses(iter([("removed", gone, "there is no timestamp")]), 1, **in_time)
    spec = make_authority(tmp_path / "tsa", "First authority")  # the same names, another key
    for roots in (load_roots(spec.roots), load_roots(sealed.second.roots)):
        bench.refuses(iter([("untrusted", {}, "no trusted authority")]), 1, roots=roots)


def test_flipped_bits_of_a_token(bench: Bench) -> None:
    """Under a trusted root, every bit that is flipped is noticed, or OpenSSL does not mind it either.

    CMS signs neither its version numbers nor the name of the signature's algorithm: those few remain, and say
    nothing. The file's name gives them away.
    """
    sealed, path = bench.sealed, bench.folder / STATEMENT
    (reply,) = (r for n, r in bench.files.items() if n.endswith(".tsr") and b"First" in r)
    roots, data, good = load_roots(sealed.first.roots), bench.files[STATEMENT], []
    truth = read_reply(reply, data, roots)
    for at in range(len(reply)):
        with suppress(ClaimIntegrityError):
            read = read_reply(flipped(reply, at, at % 8), data, roots)
            assert (read.time, read.authority) == (truth.time, truth.authority)
            good.append(at)
    bench.cases += len(reply)
    assert len(good) < 15
    for at in good:
        (bench.folder.parent / "flipped.tsr").write_bytes(flipped(reply, at, at % 8))
        assert sealed.first.accepts(bench.folder.parent / "flipped.tsr", path)


@pytest.mark.parametrize("what", ["seal", STATEMENT, "key.json"])
def test_a_link_in_place_of_a_file(bench: Bench, tmp_path: Path, what: str) -> None:
    folder = shutil.copytree(bench.folder, tmp_path / "claim")
    (folder / what).rename(tmp_path / "elsewhere")
    (folder / what).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ClaimIntegrityError, match="is missing") as e:
        verify_claim(folder)
    assert e.value.exit_code == 6


def test_the_command_ends_with_6(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Verify, audit, show and seal all refuse a claim whose seal is broken, and print one line."""
    import sys

    from cli.main import main

    folder = shutil.copytree(bench.folder, tmp_path / "claim")
    (folder / SALTS).write_bytes(bench.older[SALTS])
    (tmp_path / "suspect.onnx").write_bytes(b"not read")
    run: Callable[..., None] = lambda *a: monkeypatch.setattr(sys, "argv", ["turnmark", *map(str, a)])  # noqa: E731
    for command in (
        ("claim", "verify", folder),
        ("claim", "show", folder),
        ("audit", tmp_path / "suspect.onnx", "--claim", folder),
        ("claim", "disclose", folder, "key.json", "--out-file", tmp_path / "d.json"),
    ):
        run(*command)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 6
        said = capsys.readouterr()
        assert said.err.startswith("error: seal: the salts do not lead to the sealed root")
        assert said.out == ""
    assert not (tmp_path / "d.json").exists()
