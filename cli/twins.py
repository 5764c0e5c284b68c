"""`turnmark twins`: commit to encoders of one recipe, of which a signature picks the one to deploy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import inputs, render
from cli.commitments import (
    ONE_OF,
    Beacon,
    BeaconReply,
    BeaconTime,
    Reply,
    Timestamp,
    future,
    signature_lines,
    signed,
    warn_undated,
)
from cli.options import Out, Roots
from cli.seal import roots_in, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ownership.claims.twins import Twins

app = typer.Typer(
    help="Commit to encoders of one recipe; a timestamp authority or a beacon picks the one to deploy.",
    no_args_is_help=True,
)

FOLDERS = "folders.json"
"""File in a folder of twins: SHA-256 of an encoder's file -> its train folder, as it was given."""

Folder = Annotated[Path, typer.Argument(help="Folder of turnmark twins commit.", show_default=False)]


@app.command(
    help="Commit to two or more train folders of one key and one recipe. With --timestamp an authority signs the "
    "commitment, and its signature picks the encoder to deploy, so that its owner does not choose it. With "
    "--beacon-time a round of a public randomness beacon (drand) picks that is still to come: one commitment then "
    "gives one pick. Publish commitment.json and commitment.tsr before you deploy; keep the other encoders secret.",
    short_help="Commit to twins.",
)
def commit(
    encoders: Annotated[
        list[Path], typer.Argument(metavar="TRAIN_FOLDER...", help="Train folders of the twins.", show_default=False)
    ],
    out: Out,
    timestamp: Timestamp = None,
    beacon_time: BeaconTime = None,
    roots: Roots = None,
) -> None:
    """Write a folder of twins."""
    from ownership.errors import ClaimError
    from ownership.io.files import refuse_existing, write_json

    refuse_existing(out, ClaimError)
    for path in encoders:
        inputs.check_encoder(path, "twin")

    from ownership.io.extras import require

    if timestamp is not None:
        require("rfc3161_client")  # before anything long
    if beacon_time is not None:
        require("py_ecc")

    named = None if beacon_time is None else future(beacon_time)

    from ownership.keyed.anchoring import anchored_by
    from watermark_training.loaded_encoder import load_trained
    from watermark_training.twins import commit_twins

    trusted = roots_in(roots)
    loaded = [load_trained(path) for path in encoders]
    with render.progress() as progress:
        twins = commit_twins(loaded, progress, beacon=named)
    if timestamp is not None:
        twins = twins.signed(anchored_by(twins.commitment, timestamp, trusted))
    twins.save(out)
    names = {encoder.sha256: str(path) for encoder, path in zip(loaded, encoders, strict=True)}
    write_json(out / FOLDERS, names)
    say([f"twins: {out}, {len(twins.files)} encoders; keep {out}/representations secret", *_lines(twins, names, roots)])
    _advise(twins)


@app.command(
    help="Anchor twins that were committed to without --timestamp: an authority's reply to the commitment picks the "
    "encoder to deploy. With --beacon or --beacon-reply: verify the beacon's signature of the round that the "
    "commitment names, which picks it.",
    short_help="Have a twin picked.",
)
def anchor(
    twins: Folder,
    timestamp: Timestamp = None,
    reply: Reply = None,
    beacon: Beacon = None,
    beacon_reply: BeaconReply = None,
    roots: Roots = None,
) -> None:
    """Store an anchor, or the signature of a round, in a folder of twins."""
    if sum(given is not None for given in (timestamp, reply, beacon, beacon_reply)) != 1:
        raise typer.BadParameter(ONE_OF)

    from ownership.claims.twins import Twins

    trusted = roots_in(roots)
    loaded = Twins.load(twins)
    found = loaded.signed(
        signed(loaded.commitment, trusted, timestamp=timestamp, reply=reply, beacon=beacon, beacon_reply=beacon_reply)
    )
    found.save_commitment(twins)
    say(_lines(found, _folders(twins), roots))
    _advise(found)


@app.command(
    help="Write a timestamp request (RFC 3161) over a commitment to twins. POST it to an authority from any machine, "
    "then turnmark twins anchor TWINS --reply FILE.",
    short_help="Write a timestamp request.",
)
def request(
    twins: Folder,
    out_file: Annotated[Path, typer.Argument(help="File to write (.tsq).", show_default=False)],
) -> None:
    """Write a request."""
    from ownership.claims.twins import Twins
    from ownership.io.files import write_bytes
    from ownership.keyed.anchoring import anchor_request

    write_bytes(out_file, anchor_request(Twins.load(twins).commitment))
    say([f"timestamp request: {out_file}"])


@app.command(help="Describe twins: commitment, encoders, anchor and pick.", short_help="Describe twins.")
def show(twins: Folder, roots: Roots = None) -> None:
    """Print a description of twins."""
    from ownership.claims.twins import Twins

    found = Twins.load(twins)
    say(_lines(found, _folders(twins), roots))
    _advise(found)


def _lines(twins: Twins, names: dict[str, str], roots: Path | None) -> Iterator[str]:
    """Yield what is said of twins: commitment, each encoder, anchor."""
    of = twins.commitment
    picked = of.picked
    yield f"commitment  SHA-256 {of.commitment_sha256}"
    for i, twin in enumerate(of.twins):
        place = f", {names[twin.encoder]}" if twin.encoder in names else ""
        deploy = "  <- deploy this one" if i == picked else ""
        yield f"twin {i:<6} SHA-256 {twin.encoder}{place}{deploy}"
    yield from signature_lines(of, roots_in(roots))


def _folders(twins: Path) -> dict[str, str]:
    """Return the train folders of twins by the SHA-256 of their encoders; empty if they were not noted."""
    from ownership.errors import ClaimError
    from ownership.io.files import read_json
    from ownership.io.text import printable

    if not (twins / FOLDERS).is_file():
        return {}
    found = read_json(twins / FOLDERS, ClaimError, "names of the train folders")
    return {str(sha256): printable(path, 300) for sha256, path in found.items()}


def _advise(twins: Twins) -> None:
    """Warn of what is missing: a pick, or a date of the commitment."""
    if twins.commitment.picked is None:
        render.warn("no twin is picked yet: turnmark twins anchor")
    warn_undated(twins.commitment, "turnmark twins")
