"""The victim as a thief sees it: images in, representations out, every answer counted and, once bought, kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from attacks_for_eval.extraction.answer_store import AnswerStore
from ownership.encoders.images import EncoderLike, represent
from ownership.errors import TrainingError
from ownership.io.progress import Progress, silent


class BudgetError(TrainingError):
    """The victim will not answer as many images; nothing was answered."""


class BlackBox:
    """An encoder behind a counter, with what a provider may do to its answers.

    With a store, every answer is written down as it comes. A run that was interrupted is started again with the same
    seed and asks the same questions in the same order: those that were answered before come from the store and are not
    asked, counted or paid for again, augmented ones included.

    Args:
        encoder: the victim.
        name: what tells it from other victims (digest or address); a store is bound to it.
        budget: most images it answers, over all runs with one store; None for no limit.
        decimals: round answers to so many decimals; None for as they are.
        dims: answer the first so many numbers of a representation only; None for all.
        noise: standard deviation of Gaussian noise added to every answer, drawn anew each call (paper, Table 11).
        noise_mean: its mean (10 in the paper's Table 10).
        seed: of the noise.
        batch_size: images the encoder sees at once; what is lost, at most, if it fails.
        store: file that keeps the answers; None keeps none.
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
        store: Path | None = None,
    ) -> None:
        self._encoder, self._batch_size, self._seed = encoder, batch_size, seed
        self.budget, self.decimals, self.dims, self.noise, self.noise_mean = budget, decimals, dims, noise, noise_mean
        self._store = None if store is None else AnswerStore(store, name)
        self._seen: set[bytes] = set() if self._store is None else self._store.images()
        self._asked: Counter[bytes] = Counter()  # in this run
        self._length: int | None = None  # of an answer, once one was seen
        self.queries = 0 if self._store is None else len(self._store)  # answered so far, repeats too: what is billed

    @property
    def unique_images(self) -> int:
        """Different images answered so far."""
        return len(self._seen)

    def __call__(self, images: Tensor) -> Tensor:
        """Returns representations `(n, d)` of uint8 images `(n, c, h, w)`.

        Raises:
            BudgetError: if the budget does not cover all of them; none is answered then.
            TrainingError: if an answer is not one row of finite numbers an image, always of one length.
        """
        keys: list[tuple[bytes, int]] = []
        for row in images.cpu():
            digest = hashlib.sha256(row.contiguous().numpy().tobytes()).digest()
            keys.append((digest, self._asked[digest]))  # the how-manieth time: asking again is another purchase
            self._asked[digest] += 1
        known = {} if self._store is None else self._store.find(keys)
        for answer in known.values():
            self._same_length(len(answer))
        new = [i for i, key in enumerate(keys) if key not in known]
        if self.budget is not None and self.queries + len(new) > self.budget:
            raise BudgetError(
                f"the victim's budget of {self.budget} queries is spent: {self.queries} answered, {len(new)} asked",
                "raise the budget, or ask for fewer queries; answers bought so far are kept",
            )
        if len(new) == len(keys):
            return self._buy(images, keys)
        out = [known.get(key) for key in keys]
        if new:
            for i, answer in zip(new, self._buy(images[new], [keys[i] for i in new]), strict=True):
                out[i] = answer
        return torch.stack([answer for answer in out if answer is not None])

    def _buy(self, images: Tensor, keys: list[tuple[bytes, int]]) -> Tensor:
        """Asks in batches, checks, counts and keeps each."""
        parts: list[Tensor] = []
        for start in range(0, len(images), self._batch_size):
            rows = slice(start, start + self._batch_size)
            responses = self._checked(self._answer(images[rows]), len(images[rows]))
            self.queries += len(responses)
            self._seen.update(digest for digest, _ in keys[rows])
            if self._store is not None:
                self._store.add(keys[rows], responses)
            parts.append(responses)
        return torch.cat(parts)

    def _checked(self, responses: Tensor, n: int) -> Tensor:
        if responses.ndim != 2 or len(responses) != n:
            raise TrainingError(f"the victim answered {tuple(responses.shape)} to {n} images", "ask again later")
        self._same_length(responses.shape[1])
        if not bool(torch.isfinite(responses).all()):
            raise TrainingError(
                "the victim's answers are not finite (NaN or infinite)", "nothing can be learnt from them"
            )
        return responses

    def _same_length(self, length: int) -> None:
        if self._length not in (None, length):
            raise TrainingError(
                f"the victim answers {length} numbers an image, {self._length} before", "ask its provider"
            )
        self._length = length

    def _answer(self, images: Tensor) -> Tensor:
        """What the provider gives out."""
        responses = represent(self._encoder, images, batch_size=self._batch_size)
        if self.dims is not None:
            responses = responses[:, : self.dims]
        if self.noise or self.noise_mean:
            # by the number of answers before: a resumed run draws what an unbroken one would have
            generator = torch.Generator().manual_seed(self._seed * 2**32 + self.queries)
            responses = responses + self.noise * torch.randn(responses.shape, generator=generator) + self.noise_mean
        if self.decimals is not None:
            responses = responses.round(decimals=self.decimals)
        return responses


def query(victim: BlackBox, images: Tensor, repeats: int = 1) -> Tensor:
    """Returns the mean of `repeats` answers to each image: averaging takes off noise that is drawn anew each time.

    Raises:
        BudgetError: if the budget does not cover all repeats; none is answered then.
    """
    if repeats == 1:
        return victim(images)
    return victim(images.repeat(repeats, 1, 1, 1)).view(repeats, len(images), -1).mean(0)


def buy(
    victim: BlackBox, images: Tensor, *, repeats: int = 1, chunk: int = 1024, progress: Progress = silent
) -> Tensor:
    """Returns the victim's answers `(n, d)` to every image, each paid for once (or `repeats` times, and averaged).

    Args:
        victim: the black box.
        images: `(n, c, h, w)` uint8.
        repeats: how often each image is asked about.
        chunk: images a purchase: the budget must cover all of one.
        progress: called after every purchase.

    Raises:
        BudgetError: if the budget runs out; what was bought is in the victim's store.
        TrainingError: if an answer is not what it should be.
    """
    parts: list[Tensor] = []
    for rows in torch.split(images, chunk):
        parts.append(query(victim, rows, repeats))
        progress("asking the victim", sum(map(len, parts)), len(images))
    return torch.cat(parts)
