"""`turnmark keygen`, and of `turnmark claim`: seal, attach, verify, disclose, check-disclosure, encrypt, decrypt."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import render

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from ownership.attestation.statement import SignedStatement
    from ownership.attestation.timestamps import Timestamp
    from ownership.sealing.create import Opened

PASSPHRASE = "TURNMARK_PASSPHRASE"  # noqa: S105  the variable's name

Folder = Annotated[Path, typer.Argument(help="The claim's folder.", show_default=False)]
PublicKey = Annotated[
    Path | None,
    typer.Option(help="The owner's public key, from the owner: else anybody may have signed.", show_default=False),
]
Roots = Annotated[
    Path | None,
    typer.Option(help="PEM file of the root certificates of timestamp authorities you trust.", show_default=False),
]
Before = Annotated[
    str | None,
    typer.Option(help="A trusted timestamp must be earlier than this date, such as 2026-05-01.", show_default=False),
]

SigningKey = Annotated[Path, typer.Option(help="Your signing key, from turnmark keygen.", show_default=False)]
Request = Annotated[
    Path | None,
    typer.Option(
        help="Write a timestamp request (RFC 3161) to this file: POST it to an authority on any machine, then attach "
        "its answer.",
        show_default=False,
    ),
]
Tsa = Annotated[
    list[str] | None,
    typer.Option(help="Ask the timestamp authority at this URL; give it for two or more.", show_default=False),
]

SEAL = (
    "Seal a claim: commit to every file and private image (Merkle tree), sign that, have it timestamped. Once, before "
    "any dispute."
)
ATTACH = "Store a timestamp authority's reply with a sealed claim."
VERIFY = "Verify a sealed claim, a line a check; ends with 6 if one fails."
DISCLOSE = "Show single parts of a sealed claim to others, provably sealed, and nothing about the rest."
CHECK = "Check a disclosure, a line a check; ends with 6 if one fails."
VIEW = (
    "Write a view of a claim for an auditor: all that the verdict needs, without your private images and the exact key."
)
ENCRYPT = "Write a claim to one encrypted file (age): for keeping, and for sending to an auditor."
DECRYPT = "Open an encrypted claim into a new folder, once it verifies."
KEYGEN = "Make a signing key (Ed25519): OUT, readable by you only, and OUT.pub to publish."


def keygen(
    out: Annotated[list[Path], typer.Argument(help="File of the private key; several for several keys.")],
) -> None:
    """Writes signing keys; a passphrase from TURNMARK_PASSPHRASE or the prompt encrypts each."""
    from ownership.attestation.keys import make_signing_key

    for path in out:
        secret = ask_passphrase(f"passphrase of {path} (empty: none)", new=True, default="")
        digest = make_signing_key(path, secret)
        if not secret:
            render.warn(f"{path} has no passphrase: whoever reads the file can sign with it")
        line = f"signing key: {path}; public key: {path}.pub, fingerprint {digest}"
        render.out.print(line, markup=False, soft_wrap=True)


def seal(
    claim: Folder,
    signing_key: SigningKey,
    request: Request = None,
    tsa: Tsa = None,
    roots: Roots = None,
) -> None:
    """Commits, signs, timestamps."""
    from ownership.attestation.keys import load_signing_key
    from ownership.sealing.create import seal_claim, sealed_claim

    trusted = roots_in(roots)
    made, new = seal_claim(claim, load_signing_key(signing_key, ask_passphrase))
    say(
        [
            f"sealed: {claim}, {made.leaves} leaves, Merkle root {made.root}"
            if new
            else f"sealed already with this key, and nothing changed: {claim}, Merkle root {made.root}",
            f"key {made.public_key_sha256}",
        ]
    )
    ask_for_times(claim, made, request, tsa, trusted, sealed_claim)


def attach(
    claim: Folder,
    reply: Annotated[Path, typer.Argument(help="The authority's reply (.tsr).", show_default=False)],
    roots: Roots = None,
) -> None:
    """Stores a timestamp."""
    from ownership.errors import OwnershipError
    from ownership.io.files import read_bytes
    from ownership.sealing.create import attach as store

    stamped = store(claim, read_bytes(reply, OwnershipError, "reply"), roots_in(roots))
    say([stamped_line(stamped)])


def verify(claim: Folder, public_key: PublicKey = None, roots: Roots = None, before: Before = None) -> None:
    """Prints a line a check."""
    from ownership.attestation.timestamps import parse_date
    from ownership.sealing.verify import verify_claim

    date = None if before is None else parse_date(before)
    say(verify_claim(claim, public_key=public_key, roots=roots_in(roots), before=date))


def disclose(
    claim: Folder,
    parts: Annotated[
        list[str],
        typer.Argument(metavar="PART...", help="plan, claim.json, key.json, ..., private/0, ...", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="File to write.", show_default=False)],
    data: Annotated[bool, typer.Option("--data", help="With the parts' data, not only their digests.")] = False,
) -> None:
    """Writes a disclosure."""
    from ownership.io.files import write_bytes
    from ownership.sealing.disclosure import disclose as make

    write_bytes(out, make(claim, parts, data=data), secret=True)
    say([f"disclosure: {out}; it shows {', '.join(parts)} and the signed statement, nothing else of the claim"])


def check_disclosure(
    disclosure: Annotated[Path, typer.Argument(help="The file.", show_default=False)],
    public_key: PublicKey = None,
    roots: Roots = None,
    before: Before = None,
) -> None:
    """Prints a line a check."""
    from ownership.attestation.timestamps import parse_date
    from ownership.errors import OwnershipError
    from ownership.io.files import read_bytes
    from ownership.sealing.disclosure import check_disclosure as check

    content = read_bytes(disclosure, OwnershipError, "disclosure")
    date = None if before is None else parse_date(before)
    say(check(content, public_key=public_key, roots=roots_in(roots), before=date))


def view(claim: Folder, out: Annotated[Path, typer.Option(help="Folder to make.", show_default=False)]) -> None:
    """Writes a view."""
    from ownership.claims.redaction import NAME
    from ownership.sealing.redacted_copy import write_redacted_copy

    redaction = write_redacted_copy(claim, out)
    say([f"view: {out}; withheld: {', '.join(redaction.parts)} ({NAME}); it still holds secrets, for the auditor only"])


def encrypt(
    claim: Folder,
    out: Annotated[Path, typer.Option(help="File to write, such as claim.age.", show_default=False)],
    recipient: Annotated[
        list[str] | None,
        typer.Option(help="age public key (age1...) that can open it; give it many times.", show_default=False),
    ] = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="A passphrase opens it: from TURNMARK_PASSPHRASE, or the prompt.")
    ] = False,
) -> None:
    """Writes the encrypted file."""
    from ownership.sealing.encryption import encrypt_claim

    secret = ask_passphrase("passphrase of the encrypted claim", new=True) if passphrase else ""
    encrypt_claim(claim, out, recipients=recipient or (), passphrase=secret)
    say([f"encrypted: {out}; the folder {claim} is still there, in clear"])


def decrypt(
    file: Annotated[Path, typer.Argument(help="The encrypted claim.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to make.", show_default=False)],
    identity: Annotated[
        Path | None,
        typer.Option(help="File with your age secret key; else TURNMARK_PASSPHRASE or the prompt.", show_default=False),
    ] = None,
) -> None:
    """Opens the encrypted file."""
    from ownership.sealing.encryption import decrypt_claim

    claim = decrypt_claim(
        file, out, identity=identity, passphrase=lambda: ask_passphrase("passphrase of the encrypted claim")
    )
    say([f"claim: {out} (SHA-256 {claim.sha256}), verified; keep it secret"])


def ask_passphrase(
    what: str = "passphrase of the signing key", *, new: bool = False, default: str | None = None
) -> str:
    """From the environment, else from the prompt where somebody can answer; never from the command line."""
    stored = os.environ.get(PASSPHRASE)
    if stored is not None or not sys.stdin.isatty():
        return stored or ""
    return str(typer.prompt(what, default=default, show_default=False, hide_input=True, confirmation_prompt=new))


def roots_in(path: Path | None) -> tuple[Certificate, ...]:
    """Returns the certificates in a file, if one was given."""
    from ownership.attestation.timestamps import load_roots

    return () if path is None else load_roots(path)


def ask_for_times(
    folder: Path,
    made: SignedStatement,
    request: Path | None,
    tsa: list[str] | None,
    trusted: tuple[Certificate, ...],
    opened: Opened,
) -> None:
    """Writes a timestamp request and asks authorities, as told; says so where a seal stays without a time."""
    from ownership.sealing.create import stamp, write_request

    if request is not None:
        write_request(folder, request, opened)
        say([f"timestamp request: {request}"])
    for url in tsa or ():
        say([stamped_line(stamp(folder, url, trusted, opened))])
    if not made.timestamps and not tsa:
        render.warn("without a timestamp a seal proves nothing about when: --tsa URL, or --request FILE")


def stamped_line(stamped: Timestamp) -> str:
    """Returns a timestamp in words."""
    from ownership.attestation.statement import timestamp_line

    return timestamp_line(stamped.time.isoformat(), stamped.authority, trusted=stamped.trusted)


def say(lines: Iterable[str]) -> None:
    """Prints lines as they are."""
    for line in lines:
        render.out.print(line, markup=False, soft_wrap=True)
