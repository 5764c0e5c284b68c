"""The distance statistics of the panel's tests, against 16 independent encoders: what evasions do to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from benchmarks.common.rows import Row
from ownership.evidence.partial_regression import baseline_directions
from ownership.evidence.responses import Responses, ScoringContext
from ownership.evidence.statistics import score_members, score_one
from ownership.plan import Plan
from ownership.stats import case_control_test

MEMBERS, PROBES = 16, 1000
STATISTICS = ("partial_rsa_relative", "partial_regression")


class Panel:
    """Independent encoders that a suspect is compared with: one stratum, without a watermark.

    Args:
        victim: `(n, d)`, its representations of the probes.
        members: of each encoder, the same.
        probes: the images; the first 1,000 are used.
    """

    def __init__(self, victim: Tensor, members: Sequence[Tensor], probes: Tensor) -> None:
        self.context = ScoringContext(
            plan=Plan(),
            victim=_responses("victim", victim),
            panel=tuple(_responses(f"member {i}", x) for i, x in enumerate(members)),
            baselines=baseline_directions(probes[:PROBES]),
        )
        self.known = score_members(self.context, STATISTICS)

    def columns(self, shown: Tensor) -> Row:
        """Return the p-value of each statistic for a suspect; 1 where it cannot be computed."""
        scores, _ = score_one(_responses("suspect", shown), self.context, STATISTICS)
        return {
            "panel": {
                name: case_control_test(scores[name], list(self.known[name].values())).pvalue if name in scores else 1.0
                for name in STATISTICS
            }
        }


def _responses(name: str, x: Tensor) -> Responses:
    return Responses(name, {"public": x[:PROBES].numpy().astype(np.float32)})
