"""A victim as an attacker reaches it: images in, representations out, every query counted, every response kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attacks_for_eval.extraction.response_store import ResponseStore
from ownership.encoders.images import EncoderLike, represent
from ownership.errors import TrainingError
from ownership.io.progress import Progress, silent


class BudgetError(TrainingError):
    """The query budget does not cover a request; none of its images was answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Perturbation:
    """What a provider does to representations before it returns them, in this order.

    Attributes:
        dims: return only the first `dims` components; None returns all.
        noise: standard deviation of Gaussian noise, drawn anew for every query (paper, Table 11).
        noise_mean: mean of the noise (10 in the paper's Table 10).
        decimals: round to this many decimals; None does not round.
        seed: of the noise.
    """

    dims: int | None = None
    noise: float = 0.0
    noise_mean: float = 0.0
    decimals: int | None = None
    seed: int = 0

    def apply(self, responses: Tensor, queries: int) -> Tensor:
        """Return perturbed responses `(n, d)`; the noise follows from the seed and the number of queries before."""
        if self.dims is not None:
            responses = responses[:, : self.dims]
        if self.noise or self.noise_mean:
            generator = torch.Generator().manual_seed(self.seed * 2**32 + queries)
            responses = responses + self.noise * torch.randn(responses.shape, generator=generator) + self.noise_mean
        return responses if self.decimals is None else responses.round(decimals=self.decimals)


class BlackBox:
    """An encoder behind a query counter.

    With a store, every response is written as it arrives. An interrupted run that is started again with the same seed
    sends the same queries in the same order. Those with a stored response are neither sent nor counted again; this
    includes augmented queries.

    Args:
        encoder: the victim.
        name: identifies the victim (SHA-256 or URL); a store belongs to one victim.
        budget: most queries that it answers, over all runs with one store; None for no limit.
        perturbation: what the provider does to the responses.
        batch_size: images in one request; what is lost at most if a request fails.
        store: file that keeps the responses; None keeps none.
    """

    def __init__(
        self,
        encoder: EncoderLike,
        *,
        name: str = "",
        budget: int | None = None,
        perturbation: Perturbation = Perturbation(),
        batch_size: int = 256,
        store: Path | str | None = None,
    ) -> None:
        self._encoder, self._batch_size = encoder, batch_size
        self.budget, self.perturbation = budget, perturbation
        self._store = None if store is None else ResponseStore(Path(store), name)
        self._seen: set[bytes] = set() if self._store is None else self._store.images()
        self._occurrences: Counter[bytes] = Counter()  # queries of each image in this run
        self._dim: int | None = None  # length of a response, once one was seen
        self.queries = 0 if self._store is None else len(self._store)  # answered, repeats included: what is billed

    @property
    def unique_images(self) -> int:
        """Number of different images answered."""
        return len(self._seen)

    def __call__(self, images: Tensor) -> Tensor:
        """Return representations `(n, d)` of uint8 images `(n, c, h, w)`.

        Raises:
            BudgetError: if the budget does not cover all of them; none is answered then.
            TrainingError: if the response is not one row of finite numbers an image, always of one length.
        """
        queries: list[tuple[bytes, int]] = []
        for row in images.cpu():
            digest = hashlib.sha256(row.contiguous().numpy().tobytes()).digest()
            queries.append((digest, self._occurrences[digest]))  # a repeated query is billed again
            self._occurrences[digest] += 1
        known = {} if self._store is None else self._store.find(queries)
        for response in known.values():
            self._check_dim(len(response))
        new = [i for i, query in enumerate(queries) if query not in known]
        if self.budget is not None and self.queries + len(new) > self.budget:
            raise BudgetError(
                f"the query budget of {self.budget} is used up: {self.queries} answered, {len(new)} more needed",
                "raise the budget, or use fewer queries; the responses so far are kept",
            )
        if len(new) == len(queries):
            return self._request(images, queries)
        out = [known.get(query) for query in queries]
        if new:
            for i, response in zip(new, self._request(images[new], [queries[i] for i in new]), strict=True):
                out[i] = response
        return torch.stack([response for response in out if response is not None])

    def _request(self, images: Tensor, queries: list[tuple[bytes, int]]) -> Tensor:
        """Query in batches; check, count and store the responses of each."""
        parts: list[Tensor] = []
        for start in range(0, len(images), self._batch_size):
            rows = slice(start, start + self._batch_size)
            responses = self._checked(self._respond(images[rows]), len(images[rows]))
            self.queries += len(responses)
            self._seen.update(digest for digest, _ in queries[rows])
            if self._store is not None:
                self._store.add(queries[rows], responses)
            parts.append(responses)
        return torch.cat(parts)

    def _checked(self, responses: Tensor, n: int) -> Tensor:
        if responses.ndim != 2 or len(responses) != n:
            raise TrainingError(f"the victim answered {tuple(responses.shape)} to {n} images", "query it again later")
        self._check_dim(responses.shape[1])
        if not bool(torch.isfinite(responses).all()):
            raise TrainingError(
                "the victim's responses are not finite (NaN or infinite)", "no surrogate can be trained on them"
            )
        return responses

    def _check_dim(self, dim: int) -> None:
        if self._dim not in (None, dim):
            raise TrainingError(
                f"the victim's responses have {dim} dimensions, {self._dim} before", "the provider changed the encoder"
            )
        self._dim = dim

    def _respond(self, images: Tensor) -> Tensor:
        """What the provider returns."""
        return self.perturbation.apply(represent(self._encoder, images, batch_size=self._batch_size), self.queries)


def query(victim: BlackBox, images: Tensor, repeats: int = 1) -> Tensor:
    """Return the mean of `repeats` responses to each image: averaging reduces noise that is drawn anew each time.

    Raises:
        BudgetError: if the budget does not cover all repeats; none is answered then.
    """
    if repeats == 1:
        return victim(images)
    return victim(images.repeat(repeats, 1, 1, 1)).view(repeats, len(images), -1).mean(0)


def query_all(
    victim: BlackBox, images: Tensor, *, repeats: int = 1, chunk: int = 1024, progress: Progress = silent
) -> Tensor:
    """Return the victim's responses `(n, d)` to all images; each image is queried once, or `repeats` times.

    Args:
        victim: the black box.
        images: `(n, c, h, w)` uint8.
        repeats: queries an image, which are averaged.
        chunk: images that the budget must cover at a time.
        progress: called after every chunk.

    Raises:
        BudgetError: if the budget is used up; the responses so far are in the victim's store.
        TrainingError: if a response is malformed.
    """
    parts: list[Tensor] = []
    for rows in torch.split(images, chunk):
        parts.append(query(victim, rows, repeats))
        progress("querying the victim", sum(map(len, parts)), len(images))
    return torch.cat(parts)
