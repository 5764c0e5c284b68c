"""Extraction detection: whether what an account has asked looks like a theft (paper, section 5.3).

Four measures of a history of queries, each taken on the victim's own vectors for them: how many queries resemble an
earlier one of the same account, or one of another account (a thief who splits his views over accounts), how much of
the representation space they cover (B4B), and PRADA. None convicts by itself: `alarms` compares an account with the
histories of users known to be honest.
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
    """What an account's queries look like."""

    account: str
    queries: int
    similar_within: float  # share that resembles an earlier query of the account
    similar_across: float  # share that resembles a query of another account
    coverage: float  # buckets of the representation space occupied, as a share of those that could be
    prada: float  # 1 - Shapiro-Wilk's W of distances to the nearest earlier query: larger is less normal

    def measure(self, name: str) -> float:
        """Returns one of `MEASURES`; larger is more suspicious."""
        return float(getattr(self, name))


class HistoryMonitor:
    """Keeps what every account asked, as the victim's vectors.

    Args:
        metric: in which queries count as similar.
        threshold: of the metric (see `attacks_for_eval.defences.similarity.resembles`).
        bits: the space is cut by so many random hyperplanes through `centre` into 2^bits buckets.
        centre: `(d,)`, where the hyperplanes meet: the mean vector of honest queries; zero if not given.
        seed: of the hyperplanes.
    """

    def __init__(
        self, *, metric: Metric, threshold: float, bits: int = 12, centre: Tensor | None = None, seed: int = 0
    ) -> None:
        self._metric, self._threshold, self._bits, self._centre, self._seed = metric, threshold, bits, centre, seed
        self._asked: dict[str, list[Tensor]] = {}

    def observe(self, account: str, vectors: Tensor) -> None:
        """Adds the victim's vectors `(n, d)` for an account's next queries."""
        self._asked.setdefault(account, []).append(vectors)

    def history(self, account: str) -> History:
        """Returns what an account's queries so far look like.

        Raises:
            TrainingError: if it never asked.
        """
        if account not in self._asked:
            raise TrainingError(f"no account {account!r} has asked anything")
        own = torch.cat(self._asked[account])
        others = [x for name, parts in self._asked.items() if name != account for x in parts]
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
        x = vectors - (0 if self._centre is None else self._centre)
        buckets = {row.tobytes() for row in (x @ planes > 0).numpy()}
        return len(buckets) / min(1 << self._bits, len(vectors))


def alarms(history: History, honest: Sequence[History]) -> tuple[str, ...]:
    """Returns the measures on which an account is more suspicious than every honest one.

    H0: the account is one more honest user, exchangeable with the others; each measure then raises a false alarm with
    probability 1 / (m + 1) at most, m being the number of honest users. Histories should be of about equal length:
    all measures grow or shrink with it.

    Raises:
        TrainingError: if there are no honest histories.
    """
    if not honest:
        raise TrainingError("an alarm needs the histories of honest users to compare with")
    return tuple(name for name in MEASURES if history.measure(name) > max(h.measure(name) for h in honest))


def prada_alarm(vectors: ArrayLike, *, threshold: float = 0.9, minimum: int = 100) -> tuple[bool, float]:
    """Returns whether PRADA would raise an alarm over a user's queries, and its statistic.

    The Shapiro-Wilk statistic of the distances of each query to its nearest earlier one: benign queries give roughly
    normal distances, synthetic ones do not; alarm below the threshold. The original keeps one set a predicted class;
    an encoder has none, so this is one set. The paper expects nothing of it against natural queries (section 5.3).

    Args:
        vectors: `(n, d)`, in the order of the queries.
        threshold: delta, .9 in the reference.
        minimum: queries before which no alarm is raised.

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
