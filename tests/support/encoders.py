"""Encoders for the tests: untrained tiny networks, noisy copies of them, their records, and suspects made of them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from ownership.claims.record import EncoderRecord
from ownership.encoders.architectures import ARCHITECTURES, Encoder
from ownership.encoders.images import EncoderLike, as_input, three_channels
from ownership.io.canonical import sha256
from ownership.suspects.suspect import Suspect
from watermark_training.data import load_data
from watermark_training.encoder_files import weights_bytes

SIDE = 16
"""Height and width of the images of digits."""


@cache
def encoder(seed: int) -> Encoder:
    """Return an untrained tiny encoder, its batch normalisation settled on digits; seeds are independent."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = ARCHITECTURES["tiny"]()
    images = three_channels(as_input(load_data("digits[:64]").images))
    with torch.no_grad():
        for _ in range(30):
            made(images)
    return made.eval()


class Noisy(nn.Module):
    """An encoder close to another one: its representations plus a fixed random linear function of the image."""

    def __init__(self, base: nn.Module, seed: int, amount: float) -> None:
        super().__init__()
        self.base, self.amount = base, amount
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("mix", torch.randn(3 * SIDE * SIDE, 64, generator=generator) / (3 * SIDE * SIDE) ** 0.5)

    def forward(self, images: Tensor) -> Tensor:
        own: Tensor = self.base(images)
        noise = (images.flatten(1) - 0.5) @ self.mix
        return own + self.amount * noise


def member(name: str, kind: str, of: Encoder | None = None, *, private: bool | None = False) -> EncoderRecord:
    digest = sha256(weights_bytes(of, "tiny")) if of is not None else "0" * 64
    return EncoderRecord(name=name, kind=kind, sha256=digest, architecture="tiny", trained_on_private=private)


def as_suspect(model: EncoderLike, name: str = "suspect.onnx", *, digest: str = "0" * 64) -> Suspect:
    """Return a suspect that answers as `model` does, in this process: no file, no sandbox."""
    return Suspect(name=name, format="onnx", sha256=digest, size=1, architecture=None, encoder=model)


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether two modules have equal state dicts, in order."""
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
