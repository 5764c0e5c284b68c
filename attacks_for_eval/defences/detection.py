"""Extraction detection: whether an account's query history looks like an extraction attack (paper, section 5.3).

Four measures of a history, each computed on the victim's representations of its queries: the fraction of queries that
resemble an earlier one of the same account, or one of another account (an attacker may distribute views over accounts),
how much of the representation space they cover (B4B), and PRADA. No single measure proves an attack: `alarms` compares
an account with the histories of benign users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from attacks_for_eval.defences.similarity import Metric, resembles, resembles_earlier
from ownership.errors import TrainingError

MEASURES = ("similar_within", "similar_across", "coverage", "prada")


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Measures of an account's queries."""

    account: str
    queries: int
    similar_within: float  # fraction that resembles an earlier query of the account
    similar_across: float  # fraction that resembles a query of another account
    coverage: float  # occupied buckets of the representation space, as a fraction of those that could be occupied
    prada: float  # 1 - Shapiro-Wilk's W of distances to the nearest earlier query: larger is less normal

    def measure(self, name: str) -> float:
        """Return one of `MEASURES`; larger is more like an extraction."""
        return float(getattr(self, name))


class HistoryMonitor:
    """Keeps every account's queries, as the victim's representations of them.

    Args:
        metric: of the similarity of two queries.
        threshold: of the metric (see `attacks_for_eval.defences.similarity.resembles`).
        bits: number of random hyperplanes through `center`, which divide the space into 2^bits buckets.
        center: `(d,)`, the mean representation of benign queries; zero if not given.
        seed: of the hyperplanes.
    """

    def __init__(
        self, *, metric: Metric, threshold: float, bits: int = 12, center: Tensor | None = None, seed: int = 0
    ) -> None:
        self._metric, self._threshold, self._bits, self._center, self._seed = metric, threshold, bits, center, seed
        self._queries: dict[str, list[Tensor]] = {}

    def observe(self, account: str, vectors: Tensor) -> None:
        """Add the victim's representations `(n, d)` of an account's next queries."""
        self._queries.setdefault(account, []).append(vectors)

    def history(self, account: str) -> History:
        """Return the measures of an account's queries so far.

        Raises:
            TrainingError: if the account has no queries.
        """
        if account not in self._queries:
            raise TrainingError(f"the account {account!r} has no queries")
        own = torch.cat(self._queries[account])
        others = [x for name, parts in self._queries.items() if name != account for x in parts]
        across = torch.zeros(len(own))
        if others:
            across = resembles(own, torch.cat(others), self._metric, self._threshold).float()
        return History(
            account=account,
            queries=len(own),
            similar_within=float(resembles_earlier(own, self._metric, self._threshold).float().mean()),
            similar_across=float(across.mean()),
            coverage=self._coverage(own),
            prada=1 - prada_alarm(own)[1],
        )

    def _coverage(self, vectors: Tensor) -> float:
        generator = torch.Generator().manual_seed(self._seed)
        planes = torch.randn(vectors.shape[1], self._bits, generator=generator)
        x = vectors - (0 if self._center is None else self._center)
        buckets = {row.tobytes() for row in (x @ planes > 0).numpy()}
        return len(buckets) / min(1 << self._bits, len(vectors))


def alarms(history: History, benign: Sequence[History]) -> tuple[str, ...]:
    """Return the measures on which an account is more like an extraction than every benign one.

    H0: the account is another benign user, exchangeable with the others. Each measure then raises a false alarm with
    probability at most 1 / (m + 1), where m is the number of benign users. Histories should have about equal lengths,
    because all measures depend on the length.

    Raises:
        TrainingError: if there are no benign histories.
    """
    if not benign:
        raise TrainingError("an alarm needs the histories of benign users to compare with")
    return tuple(name for name in MEASURES if history.measure(name) > max(h.measure(name) for h in benign))


def prada_alarm(vectors: ArrayLike, *, threshold: float = 0.9, minimum: int = 100) -> tuple[bool, float]:
    """Return whether PRADA raises an alarm over a user's queries, and its statistic.

    The statistic is Shapiro-Wilk's W of the distances of each query to its nearest earlier one: benign queries give
    approximately normal distances, synthetic ones do not. An alarm is raised below the threshold. The original keeps
    one set for each predicted class; an encoder has no classes, so this keeps one set. The paper expects PRADA to miss
    natural queries (section 5.3).

    Args:
        vectors: `(n, d)`, in the order of the queries.
        threshold: delta, 0.9 in the reference.
        minimum: number of queries below which no alarm is raised.

    References:
        [1] Juuti et al., PRADA: Protecting against DNN Model Stealing Attacks, EuroS&P 2019, algorithm 3.
    """
    x = torch.as_tensor(np.asarray(vectors), dtype=torch.float64)
    if len(x) < minimum:
        return False, 1.0
    distances = torch.cdist(x, x).masked_fill(torch.ones(len(x), len(x), dtype=torch.bool).triu(), float("inf"))
    least = distances[1:].min(1).values.numpy()
    kept = least[np.abs(least - least.mean()) <= 3 * least.std()]
    if len(kept) < 3 or kept.std() == 0:
        return True, 0.0
    statistic = float(stats.shapiro(kept[:5000]).statistic)
    return statistic < threshold, statistic
