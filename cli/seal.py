"""`turnmark keygen`, and the commands of `turnmark claim` that seal, verify, disclose and redact."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import inputs, render
from cli.options import Before, Out, OutFile, PublicKey, Request, Roots, SigningKey, Tsa
from ownership.errors import ClaimError, OwnershipError
from ownership.io.files import refuse_existing

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from ownership.attestation.statement import SignedStatement
    from ownership.attestation.timestamps import Timestamp
    from ownership.sealing.create import Opened

ASK_FOR_TIME = "ask an authority with --tsa URL, or without a network with --request FILE"
PASSPHRASE = "TURNMARK_PASSPHRASE"  # noqa: S105  the variable's name

Folder = Annotated[Path, typer.Argument(help="Folder of the claim.", show_default=False)]
SEAL = (
    "Seal a claim: commit to every file and private image (Merkle tree), sign the commitment and have it timestamped. "
    "Do it once, before any dispute."
)
ATTACH = "Store a timestamp authority's reply with a sealed claim."
VERIFY = "Verify a sealed claim and print one line per check. Exit code 6: a check failed."
DISCLOSE = (
    "Write a disclosure: single parts of a sealed claim with proof that they were sealed. It reveals no other part."
)
CHECK = "Verify a disclosure and print one line per check. Exit code 6: a check failed."
REDACT = (
    "Write a redacted claim for an auditor: everything that the verdict needs, without your private images and the "
    "exact key."
)
KEYGEN = (
    "Create signing keys (Ed25519): each file readable by you only, and a file of the same name with .pub to publish."
)


def keygen(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="File of the private key; several for several keys."),
    ],
) -> None:
    """Write signing keys, each encrypted with a passphrase from TURNMARK_PASSPHRASE or the prompt."""
    from ownership.attestation.keys import make_signing_key

    for path in files:
        secret = ask_passphrase(f"passphrase of {path} (empty: none)", new=True, default="")
        digest = make_signing_key(path, secret)
        if not secret:
            render.warn(f"{path} has no passphrase: anyone who can read the file can sign with it")
        render.line(f"signing key: {path}; public key: {path}.pub, fingerprint {digest}")


def seal(
    claim: Folder,
    signing_key: SigningKey,
    request: Request = None,
    tsa: Tsa = None,
    roots: Roots = None,
) -> None:
    """Commit, sign and timestamp."""
    inputs.check_claim(claim)
    inputs.check_file(signing_key, "--signing-key")
    inputs.check_file(roots, "--roots")

    from ownership.attestation.keys import load_signing_key
    from ownership.attestation.statement import is_sealed
    from ownership.sealing.create import seal_claim, sealed_claim

    trusted = roots_in(roots)
    before = is_sealed(claim)
    made = seal_claim(claim, load_signing_key(signing_key, ask_passphrase))
    say(
        [
            f"already sealed with this key, and nothing changed: {claim}, Merkle root {made.root}"
            if before
            else f"sealed: {claim}, {made.leaves} leaves, Merkle root {made.root}",
            f"key {made.public_key_sha256}",
        ]
    )
    ask_for_times(claim, made, request, tsa, trusted, sealed_claim)


def attach(
    claim: Folder,
    reply: Annotated[Path, typer.Argument(help="The authority's reply (.tsr).", show_default=False)],
    roots: Roots = None,
) -> None:
    """Store a timestamp."""
    inputs.check_claim(claim)
    inputs.check_file(reply, "reply")
    inputs.check_file(roots, "--roots")

    from ownership.io.files import read_bytes
    from ownership.sealing.create import attach as store

    stamped = store(claim, read_bytes(reply, OwnershipError, "reply"), roots_in(roots))
    say([stamped_line(stamped)])


def verify(claim: Folder, public_key: PublicKey = None, roots: Roots = None, before: Before = None) -> None:
    """Print one line per check."""
    inputs.check_claim(claim)
    date = trusted_date(public_key, roots, before)

    from ownership.sealing.verify import verify_claim

    say(verify_claim(claim, public_key=public_key, roots=roots_in(roots), before=date).lines())


def disclose(
    claim: Folder,
    parts: Annotated[
        list[str],
        typer.Argument(metavar="PART...", help="plan, claim.json, key.json, ..., private/0, ...", show_default=False),
    ],
    out_file: OutFile,
    with_data: Annotated[
        bool, typer.Option("--with-data", help="Include the data of the parts, not only their digests.")
    ] = False,
) -> None:
    """Write a disclosure."""
    inputs.check_claim(claim)

    from ownership.io.files import write_bytes
    from ownership.sealing.disclosure import disclose as make

    write_bytes(out_file, make(claim, parts, data=with_data), secret=True)
    say(
        [
            f"disclosure: {out_file}; it reveals {', '.join(parts)} and the signed statement, and nothing else of the "
            f"claim"
        ]
    )


def check_disclosure(
    disclosure: Annotated[Path, typer.Argument(help="File of turnmark claim disclose.", show_default=False)],
    public_key: PublicKey = None,
    roots: Roots = None,
    before: Before = None,
) -> None:
    """Print one line per check."""
    inputs.check_file(disclosure, "disclosure")
    date = trusted_date(public_key, roots, before)

    from ownership.io.files import read_bytes
    from ownership.sealing.disclosure import check_disclosure as check

    content = read_bytes(disclosure, OwnershipError, "disclosure")
    say(check(content, public_key=public_key, roots=roots_in(roots), before=date).lines())


def redact(claim: Folder, out: Out) -> None:
    """Write a redacted claim."""
    inputs.check_claim(claim)
    refuse_existing(out, ClaimError)

    from ownership.claims.redaction import NAME
    from ownership.sealing.redacted_copy import write_redacted_copy

    redaction = write_redacted_copy(claim, out)
    redacted = ", ".join(redaction.parts)
    say([f"redacted claim: {out}; without {redacted} ({NAME}); it still holds secrets, for the auditor only"])


def ask_passphrase(
    what: str = "passphrase of the signing key", *, new: bool = False, default: str | None = None
) -> str:
    """Return the passphrase from the environment, else from the prompt of a terminal; never from the command line."""
    stored = os.environ.get(PASSPHRASE)
    if stored is not None or not sys.stdin.isatty():
        return stored or ""
    return str(typer.prompt(what, default=default, show_default=False, hide_input=True, confirmation_prompt=new))


def trusted_date(public_key: Path | None, roots: Path | None, before: str | None) -> datetime | None:
    """Check what a verifier trusts before anything heavy is imported; return the date that `--before` gives."""
    from ownership.attestation.timestamps import parse_date

    inputs.check_file(public_key, "--public-key")
    inputs.check_file(roots, "--roots")
    if before is not None and roots is None:
        raise OwnershipError("--before needs --roots: anyone can make a timestamp", "--roots FILE.pem")
    return None if before is None else parse_date(before)


def roots_in(path: Path | None) -> tuple[Certificate, ...]:
    """Return the certificates in a file, if one was given."""
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
    """Write a timestamp request and ask authorities, as the options say; warn if the seal has no timestamp."""
    from ownership.sealing.create import sealed_claim, stamp, write_request

    if request is not None:
        write_request(folder, request, opened)
        say([f"timestamp request: {request}"])
    for url in tsa or ():
        say([stamped_line(stamp(folder, url, trusted, opened))])
    if made.timestamps or tsa:
        return
    what = "claim" if opened is sealed_claim else "report"
    step = f"send {request} to an authority, then: turnmark {what} attach {folder} REPLY" if request else ASK_FOR_TIME
    render.warn(f"a seal without a timestamp does not prove when it was made; {step}")


def stamped_line(stamped: Timestamp) -> str:
    """Return a timestamp in words."""
    from ownership.attestation.statement import timestamp_line

    return timestamp_line(stamped.time.isoformat(), stamped.authority, trusted=stamped.trusted)


def say(lines: Iterable[str]) -> None:
    """Print lines as they are."""
    for line in lines:
        render.line(line)
