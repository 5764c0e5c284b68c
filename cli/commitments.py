"""Options and lines that `turnmark key` and `turnmark twins` have in common: what signs a commitment, and when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.x509 import Certificate

    from ownership.attestation.beacon import BeaconRound
    from ownership.keyed.commitment import Commitment

Timestamp = Annotated[
    str | None,
    typer.Option(
        "--timestamp", help="URL of a timestamp authority (RFC 3161) that signs the commitment.", show_default=False
    ),
]
Reply = Annotated[
    Path | None,
    typer.Option("--reply", help="An authority's reply (.tsr) to the request over the commitment.", show_default=False),
]
BeaconTime = Annotated[
    str | None,
    typer.Option(
        "--beacon-time",
        metavar="TIME",
        help="Time in the future (2026-12-24T12:00+01:00): the key, or the pick of twins, follows from the first round "
        "that the beacon signs then, and does not exist before. Publish or timestamp the commitment before.",
        show_default=False,
    ),
]
Beacon = Annotated[
    str | None,
    typer.Option(
        "--beacon",
        help="URL of a relay of the beacon, such as https://api.drand.sh, that is asked for the named round.",
        show_default=False,
    ),
]
BeaconReply = Annotated[
    Path | None,
    typer.Option(
        "--beacon-reply",
        help="A relay's answer (JSON) for that round; the command show names its path.",
        show_default=False,
    ),
]
ONE_OF = "give one of --timestamp URL, --reply FILE, --beacon URL and --beacon-reply FILE"


def future(time: str) -> BeaconRound:
    """Return the first round that the beacon signs at a time in the future."""
    from datetime import UTC, datetime

    from ownership.attestation.beacon import future_round
    from ownership.attestation.timestamps import parse_date

    return future_round(parse_date(time), datetime.now(UTC))


C = TypeVar("C", bound="Commitment")


def signed(
    of: C,
    roots: Sequence[Certificate],
    *,
    timestamp: str | None,
    reply: Path | None,
    beacon: str | None,
    beacon_reply: Path | None,
) -> C:
    """Return a key or twins with the signature that the one option given brings."""
    from ownership.errors import OwnershipError
    from ownership.io.files import read_bytes
    from ownership.keyed.anchoring import anchored_by, anchored_with, drawn_by, drawn_with

    if timestamp is not None:
        return anchored_by(of, timestamp, roots)
    if reply is not None:
        return anchored_with(of, read_bytes(reply, OwnershipError, "reply"), roots)
    if beacon is not None:
        return drawn_by(of, beacon)
    return drawn_with(of, read_bytes(beacon_reply, OwnershipError, "reply"))  # type: ignore[arg-type]


def signature_lines(of: Commitment, roots: Sequence[Certificate]) -> list[str]:
    """Return what is said of the round and of the anchor of a commitment."""
    stamped, named, lines = of.timestamp(roots), of.beacon, []
    if named is not None:
        when = "to be signed at" if of.waits else "signed at"
        lines.append(f"beacon      {named}, {when} {named.time.isoformat()}; at every relay: {named.path}")
    if stamped is not None:
        checked = "which chains to --roots" if stamped.trusted else "which was not checked against a root (--roots)"
        lines.append(f"anchor      signed at {stamped.time.isoformat()} by {stamped.authority}, {checked}")
    return lines


def warn_undated(of: Commitment, command: str) -> None:
    """Warn of a commitment that names a round and has no date."""
    if of.beacon is not None and of.anchor is None:
        render.warn(
            f"the commitment has no date: publish it before {of.beacon.time.isoformat()}, or have it timestamped "
            f"({command} anchor --timestamp URL); otherwise it could be made afterwards"
        )
