"""Twins from train folders: encoders of one key and one recipe, committed to together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ownership.attestation.beacon import BeaconRound
from ownership.claims.record import NamedEncoder
from ownership.claims.twins import Twins
from ownership.errors import ClaimError
from ownership.io.progress import Progress, silent
from ownership.io.text import printable
from watermark_training.loaded_encoder import LoadedEncoder


def commit_twins(
    encoders: Sequence[LoadedEncoder], progress: Progress = silent, *, beacon: BeaconRound | None = None
) -> Twins:
    """Return a commitment to the encoders of train folders, of which none is picked yet.

    Args:
        encoders: the twins, trained with one key by one recipe; seeds may differ.
        progress: called after every encoder.
        beacon: future round of a beacon that shall pick; a timestamp authority does, if not given.

    Raises:
        ClaimError: if they have not one key or not one recipe, or two are the same file.
    """
    materials = [encoder.require_material() for encoder in encoders]
    if any(material.key != materials[0].key for material in materials):
        raise ClaimError("the twins were trained with different keys", "turnmark train --key, with one key for all")
    recipes = [recipe_of(encoder) for encoder in encoders]
    for recipe in recipes:
        if different := [name for name in recipe if recipe[name] != recipes[0].get(name)]:
            raise ClaimError(
                f"the twins are not of one recipe: they differ in {printable(', '.join(different))}",
                "train all with the same options; only --seed may differ",
            )
    named = [NamedEncoder(e.member(f"twin_{i}", "twin"), e.encoder) for i, e in enumerate(encoders)]
    return Twins.commit(named, materials[0], recipes[0], progress, beacon=beacon)


def recipe_of(encoder: LoadedEncoder) -> dict[str, Any]:
    """Return what a train folder states of an encoder but its weights and seed: architecture, training, images."""
    config = encoder.config
    return {
        "architecture": config.get("architecture"),
        "train": {name: value for name, value in config.get("train", {}).items() if name != "seed"},
        "data": config.get("data", {}),
        "base_checkpoint": config.get("base_checkpoint"),
    }
