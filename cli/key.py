"""`turnmark key`: make, anchor and show keys of the keyed watermark."""

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
from cli.options import DATA_HELP, N_PROBES_HELP, Out, Roots, Size
from cli.seal import roots_in, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.x509 import Certificate
    from torch import Tensor

    from ownership.keyed.features import PoolFeatures
    from ownership.keyed.key import Features, Key

app = typer.Typer(help="Make keys of the keyed watermark, and anchor them in time.", no_args_is_help=True)

FEWEST = 100
"""Fewest images of a pool: `ownership.keyed.key.MIN_PROBES`."""
Folder = Annotated[Path, typer.Argument(help="Folder of turnmark key new.", show_default=False)]
PoolImages = Annotated[
    str, typer.Argument(help="Public images that the encoder is not trained on. " + DATA_HELP, show_default=False)
]
FEATURE_ENCODER_HELP = (
    "A trained encoder (weights or ONNX), such as a public one or an early checkpoint, whose features the invariant "
    "map marks instead of a random network's. It finds surrogates of augmented or rotated queries better. Give the "
    "key's folder to turnmark train, which needs the encoder."
)
ADVICE = (
    "the key is not anchored in time: that it was chosen after a suspect was known is not excluded. Anchor it before "
    "training: turnmark key anchor"
)


@app.command(
    help="Draw a secret and commit to it and to a pool of public images, from which the key draws the probes of an "
    "audit. With --timestamp an authority signs the commitment, and the key follows from its signature: so it is "
    "excluded that keys were tried until one fitted a suspect. With --beacon-time it follows from a round of a public "
    "randomness beacon (drand) that is still to come. Publish commitment.json, keep key.json secret.",
    short_help="Make a key.",
)
def new(
    pool: PoolImages,
    out: Out,
    n_probes: Annotated[
        int | None,
        typer.Option("--n-probes", min=FEWEST, help=N_PROBES_HELP),
    ] = None,
    directions: Annotated[
        int, typer.Option("--directions", min=1, max=64, help="Directions of each feature map that are taught.")
    ] = 4,
    feature_encoder: Annotated[
        Path | None, typer.Option("--feature-encoder", help=FEATURE_ENCODER_HELP, show_default=False)
    ] = None,
    timestamp: Timestamp = None,
    beacon_time: BeaconTime = None,
    roots: Roots = None,
    size: Size = None,
) -> None:
    """Write a key folder."""
    from ownership.errors import ClaimError
    from ownership.io.files import refuse_existing

    refuse_existing(out, ClaimError)
    inputs.check_images(pool, least=FEWEST, what="pool")
    if feature_encoder is not None:
        inputs.check_encoder(feature_encoder, "feature encoder")

    from ownership.io.extras import require

    if timestamp is not None:  # before anything long
        require("rfc3161_client")
    if beacon_time is not None:
        require("py_ecc")

    named_round = None if beacon_time is None else future(beacon_time)

    from ownership.keyed.anchoring import anchored_by, save_key
    from ownership.keyed.key import new_key
    from ownership.keyed.pool import pool_of
    from watermark_training.data import load_data

    trusted = roots_in(roots)
    images = load_data(pool, size=size).images
    features = None if feature_encoder is None else _features(feature_encoder, images)
    named = None if features is None else features.named
    key = new_key(pool_of(images), probes=n_probes, directions=directions, features=named, beacon=named_round)
    if timestamp is not None:
        key = anchored_by(key, timestamp, trusted)
    save_key(key, images, out, features)
    say(
        [
            f"key: {out}, {key.probes:,} probes of a pool of {key.pool.images:,} images; keep {out}/key.json secret",
            f"commitment to publish: {out}/commitment.json, SHA-256 {key.commitment_sha256}",
        ]
    )
    _say_anchor(key, trusted)


@app.command(
    help="Anchor a key that was made without --timestamp: verify that an authority's reply covers its commitment, and "
    "draw the probes anew, as the key then is another one. With --beacon or --beacon-reply: verify the beacon's "
    "signature of the round that the commitment names, and draw the probes. Do it before training.",
    short_help="Anchor a key in time.",
)
def anchor(
    key: Folder,
    pool: PoolImages,
    timestamp: Timestamp = None,
    reply: Reply = None,
    beacon: Beacon = None,
    beacon_reply: BeaconReply = None,
    roots: Roots = None,
    size: Size = None,
) -> None:
    """Store an anchor in a key folder."""
    if sum(given is not None for given in (timestamp, reply, beacon, beacon_reply)) != 1:
        raise typer.BadParameter(ONE_OF)
    inputs.check_key(key)
    inputs.check_images(pool, least=FEWEST, what="pool")

    from ownership.keyed.anchoring import draw_if_signed, save_key
    from ownership.keyed.features import PoolFeatures
    from ownership.keyed.pool import load_key
    from watermark_training.data import load_data

    trusted = roots_in(roots)
    old = load_key(key)
    images = load_data(pool, size=size).images
    features = PoolFeatures.load(key)
    draw_if_signed(old, images, features)  # checked before an authority or a beacon is asked
    found = signed(old, trusted, timestamp=timestamp, reply=reply, beacon=beacon, beacon_reply=beacon_reply)
    save_key(found, images, key, features)
    _say_anchor(found, trusted)


@app.command(
    help="Write a timestamp request (RFC 3161) over a key's commitment. POST it to an authority from any machine, then "
    "turnmark key anchor KEY POOL --reply FILE.",
    short_help="Write a timestamp request.",
)
def request(
    key: Folder,
    out_file: Annotated[Path, typer.Argument(help="File to write (.tsq).", show_default=False)],
) -> None:
    """Write a request."""
    inputs.check_key(key)

    from ownership.io.files import write_bytes
    from ownership.keyed.anchoring import anchor_request
    from ownership.keyed.pool import load_key

    write_bytes(out_file, anchor_request(load_key(key)))
    say([f"timestamp request: {out_file}"])


@app.command(
    help="Describe a key: commitment, pool, anchor. The secret is not shown. Its probes are checked first.",
    short_help="Describe a key.",
)
def show(key: Folder, roots: Roots = None) -> None:
    """Print a description of a key."""
    inputs.check_key(key)

    from ownership.keyed.pool import KeyMaterial, load_key

    found = load_key(key)
    if not found.waits:
        KeyMaterial.load(key)
    channels, height, width = found.pool.shape
    say(
        [
            f"commitment  SHA-256 {found.commitment_sha256}",
            f"pool        {found.pool.images:,} images of {channels} x {height} x {width}, SHA-256 {found.pool.sha256}",
            f"probes      {found.probes:,}, {'not drawn yet' if found.waits else 'drawn by the key'}",
            f"directions  {found.directions} of each feature map",
            f"features    {_features_line(found.features)}",
        ]
    )
    _say_anchor(found, roots_in(roots))


def _features(file: Path, images: Tensor) -> PoolFeatures:
    from ownership.keyed.features import PoolFeatures
    from ownership.suspects.suspect import load_encoder

    encoder = load_encoder(file)
    with render.progress() as show:
        return PoolFeatures.compute(images, encoder.encoder, file, show)


def _features_line(features: Features | None) -> str:
    if features is None:
        return "of random networks"
    return f"of random networks, and of the encoder with SHA-256 {features.encoder_sha256}"


def _say_anchor(key: Key, roots: Sequence[Certificate]) -> None:
    say(signature_lines(key, roots))
    warn_undated(key, "turnmark key")
    if key.beacon is None and key.anchor is None:
        render.warn(ADVICE)
