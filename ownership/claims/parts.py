"""The parts of a claim's folder, from bytes to what they hold.

Every digest was checked before (`ownership.claims.storage`). What is malformed raises KeyError, TypeError, ValueError,
RuntimeError, IndexError or SafetensorError; `Claim.parse` makes one error of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from ownership.claims.probes import WatermarkProbes, check_rows
from ownership.claims.redaction import PRIVATE_PROBES, PRIVATE_SETS
from ownership.claims.storage import VerifiedFolder
from ownership.claims.twins import TWINS, Twins
from ownership.errors import ClaimError, ClaimIntegrityError
from ownership.evidence.querying import Probes, same_responses
from ownership.evidence.responses import Responses
from ownership.io.canonical import parse_canonical, parse_json
from ownership.io.text import printable
from ownership.keyed.features import ProbeFeatures
from ownership.keyed.key import Key
from ownership.keyed.pool import KeyMaterial
from ownership.watermark import Watermark, WatermarkKey, stored_predictor

MOST_REFERENCES = 50
"""Largest number of reference surrogates of a claim."""
KEYED, POOL, FEATURES = "keyed.json", "pool.sha256", "features.safetensors"
"""Parts that hold the key of the keyed watermark, the digests of its pool, and the features of an encoder."""


def read_probes(folder: VerifiedFolder) -> tuple[Probes, WatermarkProbes | None]:
    """Return the probe sets, and how each watermark probe was made."""
    tensors = load(folder.parts["probes.safetensors"])
    watermark_probes = WatermarkProbes.pop_from(tensors)
    if watermark_probes is not None:
        watermark_probes.check(tensors)
    if not tensors.keys().isdisjoint(PRIVATE_SETS):
        raise ValueError("private images among the other probes")
    if PRIVATE_PROBES in folder.redaction.parts:
        return tensors, watermark_probes
    private = load(folder.parts[PRIVATE_PROBES])
    if not set(private) <= set(PRIVATE_SETS):
        raise ValueError("other probes among the private images")
    return tensors | private, watermark_probes


def positive(value: object) -> int:
    """Return a whole number above 0; raise ValueError for anything else."""
    if type(value) is not int or value < 1:
        raise ValueError("not a positive number")
    return value


def read_material(folder: VerifiedFolder, public: Tensor) -> KeyMaterial | None:
    """Return the key of the keyed watermark, after checking that it draws the public probes from its pool."""
    if KEYED not in folder.content["parts"]:
        return None
    key = Key.from_dict(parse_canonical(folder.parts[KEYED], ClaimError, f"claim: {KEYED}"))
    channels = key.pool.shape[0]
    if not torch.equal(public, public[:, :channels].expand_as(public)):  # gray images may be stored with three channels
        raise ClaimIntegrityError("the public probes of a gray pool are not gray: they were edited")
    features = None if key.features is None else ProbeFeatures.from_bytes(folder.parts[FEATURES])
    probes = public[:, :channels].contiguous()
    material = KeyMaterial(key=key, probes=probes, digests=folder.parts[POOL], features=features)
    material.check()
    return material


def check_references(victim: Responses, references: Mapping[str, Responses]) -> None:
    """Check that every reference surrogate is another encoder: each counts once in the likelihood ratio.

    Raises:
        ClaimError: If one gives the victim's or another one's responses, or there are more than `MOST_REFERENCES`.
    """
    if len(references) > MOST_REFERENCES:
        raise ClaimError(f"claim: {len(references)} reference surrogates", f"at most {MOST_REFERENCES}")
    known = {"the victim": victim}
    for name, responses in references.items():
        for other, found in known.items():
            if same_responses(responses, found):
                raise ClaimError(f"reference surrogate {printable(name)} gives the responses of {printable(other)}",
                                 "leave it out")  # fmt: skip
        known[name] = responses


def read_twins(folder: VerifiedFolder, material: KeyMaterial | None, victim: str, responses: Responses) -> Twins | None:
    """Return the twins, after checking them against the key's probes, and that the victim is the one picked.

    Args:
        folder: The claim's folder.
        material: The claim's key.
        victim: SHA-256 of the victim's file.
        responses: The victim's responses.
    """
    if TWINS not in folder.content["parts"]:
        return None
    if material is None:
        raise ValueError("twins without a key")
    twins = Twins.from_parts(folder.parts)
    twins.check(material)
    twins.check_victim(victim, responses)
    return twins


def read_watermark(folder: VerifiedFolder, dim: int) -> Watermark | None:
    """Return the rotation watermark of a victim with representations of dimension `dim`."""
    named = folder.content["parts"]
    if ("key.json" in named) != ("predictor.safetensors" in named):
        raise ValueError("a key without its predictor, or a predictor without its key")
    if "predictor.safetensors" not in named:
        return None
    key = None
    if "key.json" in folder.parts:
        key = WatermarkKey.from_dict(parse_json(folder.parts["key.json"], ClaimError, "claim: key.json"))
    return Watermark(key=key, predictor=stored_predictor(load(folder.parts["predictor.safetensors"]), dim))


def read_responses(folder: VerifiedFolder, name: str, probes: Probes) -> Responses:
    """Return the representations of one encoder, one for each probe."""
    tensors = load(folder.parts[f"representations/{name}.safetensors"])
    redacted = PRIVATE_SETS if PRIVATE_PROBES in folder.redaction.parts else ()
    sets = {k: v.float().numpy() for k, v in tensors.items() if k not in redacted}
    check_rows(sets, probes)
    if not all(np.isfinite(rows).all() for rows in sets.values()):
        raise ClaimError(f"claim: representations of {printable(name)} that are not finite", "restore the original")
    return Responses(name, sets)
