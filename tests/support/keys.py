"""Keys of the keyed watermark that are the same in every run of the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from support.encoders import member
from torch import Tensor

from ownership.claims.build import build_claim
from ownership.claims.claim import Claim
from ownership.claims.probes import ClaimImages
from ownership.claims.record import NamedEncoder
from ownership.encoders.images import EncoderLike
from ownership.io.canonical import canonical_json, sha256
from ownership.keyed.key import Key
from ownership.keyed.pool import KeyMaterial, pool_of
from ownership.plan import Plan

ONE_LOOK = Plan(interim_queries=(), interim_alpha_shares=(), n_rotated=20, min_probes=100)


def key_of(images: torch.Tensor, secret: int = 1, directions: int = 8) -> KeyMaterial:
    """A key with these images as its pool, all of them probes."""
    pool = pool_of(images)
    key = Key(secret=bytes([secret]) * 32, pool=pool, probes=pool.images, directions=directions)
    return KeyMaterial.draw(key, images)


def claimed(victim: EncoderLike, material: KeyMaterial, pool: Tensor, **options: Any) -> Claim:
    options.setdefault("plan", ONE_LOOK)
    return build_claim(NamedEncoder(member("victim", "victim"), victim), ClaimImages(None, pool), material=material,
                       **options)  # fmt: skip


def rewritten(folder: Path, parts: dict[str, bytes], **fields: Any) -> Path:
    """Change a claim's files and redo every digest, as its owner can."""
    content = json.loads((folder / "claim.json").read_bytes())
    content.pop("content_sha256")
    content |= fields
    for name, data in parts.items():
        (folder / name).write_bytes(data)
        content["parts"][name] = {"sha256": sha256(data), "bytes": len(data)}
    whole = {**content, "content_sha256": sha256(canonical_json(content))}
    (folder / "claim.json").write_bytes(canonical_json(whole))
    return folder
