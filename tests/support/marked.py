"""A claim with a key and without a panel, and encoders that hold the key's targets, without any training."""

from __future__ import annotations

from functools import cache

import torch
from support.encoders import encoder, member
from torch import Tensor, nn

from ownership.claims.build import build_claim
from ownership.claims.claim import Claim
from ownership.claims.probes import ClaimImages
from ownership.claims.record import NamedEncoder
from ownership.encoders.images import as_input, three_channels
from ownership.keyed.key import Key
from ownership.keyed.maps import Targets
from ownership.keyed.pool import KeyMaterial, pool_of
from ownership.plan import Plan
from watermark_training.data import load_data


class Marked(nn.Module):
    """An encoder whose representations also hold the key's targets: what training with a key would give."""

    def __init__(self, base: nn.Module, targets: Targets, amount: float, seed: int = 0) -> None:
        super().__init__()
        self.base, self.targets = base, targets
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            scale = amount * base(three_channels(as_input(load_data("digits[:64]").images))).std()
        self.mix = scale * torch.randn(2 * targets.frame("content").shape[1], 64, generator=generator) / 8

    def forward(self, x: Tensor) -> Tensor:
        own: Tensor = self.base(x)
        return own + self.targets(x) @ self.mix


@cache
def pool() -> Tensor:
    """Return the images of the key's pool."""
    images = load_data("digits").images
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:600]]


@cache
def material() -> KeyMaterial:
    return KeyMaterial.draw(Key(secret=bytes(range(32)), pool=pool_of(pool()), probes=400), pool())


@cache
def marked(seed: int, amount: float = 2.0) -> Marked:
    return Marked(encoder(seed), Targets(material()), amount).eval()


@cache
def keyed_claim(plan: Plan | None = None) -> Claim:
    references = [NamedEncoder(member(f"reference_{i}", "reference"), marked(60 + i, 1.0)) for i in range(3)]
    return build_claim(
        NamedEncoder(member("victim", "victim"), marked(1)),
        ClaimImages(None, material().probes),
        material=material(),
        references=references,
        plan=plan,
    )
