"""The victim as a thief sees it: images in, representations out, every answer counted and, once bought, kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ownership.errors import OwnershipError, TrainingError
from ownership.files import Progress, read_bytes, sha256, silent, write_bytes
from ownership.images import EncoderLike, images_sha256, represent


class BudgetError(TrainingError):
    """The victim will not answer as many images; nothing was answered."""


class BlackBox:
    """An encoder behind a counter, with what a provider may do to its answers.

    Args:
        encoder: the victim.
        name: what tells it from other victims (digest or address); kept answers are bound to it.
        budget: most images it answers; None for no limit.
        decimals: round answers to so many decimals; None for as they are.
        dims: answer the first so many numbers of a representation only; None for all.
        noise: standard deviation of Gaussian noise added to every answer, drawn anew each call (paper, Table 11).
        noise_mean: its mean (10 in the paper's Table 10).
        seed: of the noise.
        batch_size: images the encoder sees at once.
    """

    def __init__(
        self,
        encoder: EncoderLike,
        *,
        name: str = "",
        budget: int | None = None,
        decimals: int | None = None,
        dims: int | None = None,
        noise: float = 0.0,
        noise_mean: float = 0.0,
        seed: int = 0,
        batch_size: int = 256,
    ) -> None:
        self._encoder, self._batch_size, self.name = encoder, batch_size, name
        self.budget, self.decimals, self.dims, self.noise, self.noise_mean = budget, decimals, dims, noise, noise_mean
        self._generator = torch.Generator().manual_seed(seed)
        self._seen: set[bytes] = set()
        self.queries = 0  # images answered so far, repeated ones too: what a provider bills

    @property
    def unique_images(self) -> int:
        """Different images answered so far."""
        return len(self._seen)

    def __call__(self, images: Tensor) -> Tensor:
        """Returns representations `(n, d)` of uint8 images `(n, c, h, w)`.

        Raises:
            BudgetError: if the budget does not cover all of them; none is answered then.
        """
        if self.budget is not None and self.queries + len(images) > self.budget:
            raise BudgetError(
                f"the victim's budget of {self.budget} queries is spent: {self.queries} answered, {len(images)} asked",
                "raise the budget, or ask for fewer queries; answers bought so far are kept",
            )
        self.queries += len(images)
        self._seen.update(hashlib.sha256(row.numpy().tobytes()).digest() for row in images.cpu())
        answers = represent(self._encoder, images, batch_size=self._batch_size)
        if self.dims is not None:
            answers = answers[:, : self.dims]
        if self.noise or self.noise_mean:
            drawn = torch.randn(answers.shape, generator=self._generator)
            answers = answers + self.noise * drawn + self.noise_mean
        if self.decimals is not None:
            answers = answers.round(decimals=self.decimals)
        return answers


def buy(
    victim: BlackBox, images: Tensor, *, store: Path | None = None, chunk: int = 1024, progress: Progress = silent
) -> Tensor:
    """Returns the victim's answers to every image, each paid for once.

    Args:
        victim: the black box.
        images: `(n, c, h, w)` uint8.
        store: file that keeps the answers as they come; a later call of the same victim and images goes on from it.
        chunk: images a purchase.
        progress: called after every purchase.

    Raises:
        BudgetError: if the budget runs out; what was bought is in `store`.
        TrainingError: if answers are not finite, change their shape, or the store belongs to another victim or
            other images.
    """
    digest = sha256(f"{victim.name}:{images_sha256(images)}".encode())
    bought = _stored(store, digest)
    while len(bought) < len(images):
        rows = images[len(bought) : len(bought) + chunk]
        answers = victim(rows)
        if answers.ndim != 2 or len(answers) != len(rows) or (len(bought) and answers.shape[1] != bought.shape[1]):
            raise TrainingError(f"the victim answered {tuple(answers.shape)} to {len(rows)} images", "ask again later")
        if not bool(torch.isfinite(answers).all()):
            raise TrainingError(
                "the victim's answers are not finite (NaN or infinite)", "nothing can be learnt from them"
            )
        bought = torch.cat([bought, answers]) if len(bought) else answers
        if store is not None:
            write_bytes(store, save({"answers": bought.contiguous()}, metadata={"victim_and_images": digest}))
        progress("asking the victim", len(bought), len(images))
    return bought


def _stored(store: Path | None, digest: str) -> Tensor:
    if store is None or not store.is_file():
        return torch.empty(0, 0)
    data = read_bytes(store, OwnershipError, "bought answers")
    try:
        answers = load(data)["answers"]
    except (SafetensorError, KeyError) as e:
        raise TrainingError(f"{store.name} is damaged", "delete it; its answers must be bought again") from e
    if digest.encode() not in data[: 8 + int.from_bytes(data[:8], "little")]:
        raise TrainingError(f"{store.name} holds answers of another victim or to other images", "choose another --out")
    return answers
