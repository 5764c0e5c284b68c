"""`turnmark twins`: commit to encoders of one recipe, of which an authority's signature picks the one to deploy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import inputs, render
from cli.key import REPLY_HELP, TIMESTAMP_HELP, anchor_line
from cli.options import Out, Roots
from cli.seal import roots_in, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ownership.claims.twins import Twins

app = typer.Typer(
    help="Commit to encoders of one recipe; a timestamp authority picks the one to deploy.", no_args_is_help=True
)

Folder = Annotated[Path, typer.Argument(help="Folder of turnmark twins commit.", show_default=False)]
Timestamp = Annotated[
    str | None,
    typer.Option(
        "--timestamp",
        help=TIMESTAMP_HELP,
        show_default=False,
    ),
]


@app.command(
    help="Commit to two or more train folders of one key and one recipe. With --timestamp an authority signs the "
    "commitment, and its signature picks the encoder to deploy, so that its owner does not choose it. Publish "
    "commitment.json and commitment.tsr before you deploy; keep the other encoders secret.",
    short_help="Commit to twins.",
)
def commit(
    encoders: Annotated[
        list[Path], typer.Argument(metavar="TRAIN_FOLDER...", help="Train folders of the twins.", show_default=False)
    ],
    out: Out,
    timestamp: Timestamp = None,
    roots: Roots = None,
) -> None:
    """Write a folder of twins."""
    from ownership.errors import ClaimError
    from ownership.io.files import refuse_existing

    refuse_existing(out, ClaimError)
    for path in encoders:
        inputs.check_encoder(path, "twin")

    from ownership.io.extras import require

    if timestamp is not None:
        require("rfc3161_client")  # before anything long

    from ownership.keyed.anchoring import anchored_by
    from watermark_training.loaded_encoder import load_trained
    from watermark_training.twins import commit_twins

    trusted = roots_in(roots)
    loaded = [load_trained(path) for path in encoders]
    with render.progress() as progress:
        twins = commit_twins(loaded, progress)
    if timestamp is not None:
        twins = twins.anchored(anchored_by(twins.commitment, timestamp, trusted))
    twins.save(out)
    names = {encoder.sha256: path for encoder, path in zip(loaded, encoders, strict=True)}
    say([f"twins: {out}, {len(twins.files)} encoders; keep {out}/representations secret", *_lines(twins, names, roots)])
    if timestamp is None:
        render.warn("no twin is picked yet: turnmark twins anchor")


@app.command(
    help="Anchor twins that were committed to without --timestamp: an authority's reply to the commitment picks the "
    "encoder to deploy.",
    short_help="Have a twin picked.",
)
def anchor(
    twins: Folder,
    timestamp: Timestamp = None,
    reply: Annotated[
        Path | None,
        typer.Option("--reply", help=REPLY_HELP, show_default=False),
    ] = None,
    roots: Roots = None,
) -> None:
    """Store an anchor in a folder of twins."""
    if (timestamp is None) == (reply is None):
        raise typer.BadParameter("give one of --timestamp URL and --reply FILE")

    from ownership.claims.twins import Twins
    from ownership.errors import OwnershipError
    from ownership.io.files import read_bytes
    from ownership.keyed.anchoring import anchored_by, anchored_with

    trusted = roots_in(roots)
    loaded = Twins.load(twins)
    if timestamp is not None:
        found = anchored_by(loaded.commitment, timestamp, trusted)
    else:
        found = anchored_with(loaded.commitment, read_bytes(reply, OwnershipError, "reply"), trusted)  # type: ignore[arg-type]
    anchored = loaded.anchored(found)
    anchored.save_anchor(twins)
    say(_lines(anchored, {}, roots))


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

    say(_lines(Twins.load(twins), {}, roots))


def _lines(twins: Twins, names: dict[str, Path], roots: Path | None) -> Iterator[str]:
    """Yield what is said of twins: commitment, each encoder, anchor."""
    of = twins.commitment
    picked = of.picked
    yield f"commitment  SHA-256 {of.commitment_sha256}"
    for i, twin in enumerate(of.twins):
        place = f", {names[twin.encoder]}" if twin.encoder in names else ""
        deploy = "  <- deploy this one" if i == picked else ""
        yield f"twin {i:<6} SHA-256 {twin.encoder}{place}{deploy}"
    stamped = of.timestamp(roots_in(roots))
    yield "anchor      none: no twin is picked yet" if stamped is None else anchor_line(stamped)
