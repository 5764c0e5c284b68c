"""The plan: every choice that could be tuned after seeing a suspect, fixed when the claim is built."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from ownership.errors import ClaimError
from ownership.stats import MIN_STRATUM

DECIDING = ("partial_rsa", "watermark_success")
"""Tests that may decide (rule 4); all others are shown only."""

REQUIRED_STRATA = ("plain", "marked")
"""Strata a claim should have; a missing one is an innocent explanation not excluded (rule 2)."""

STRATA = (*REQUIRED_STRATA, "ancestor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Tests, error rate, correction, verdict rule, sizes and seed of every audit of a claim."""

    rule: str = "turnmark-1"  # the verdict rule, ownership.report.decide
    deciding: tuple[str, ...] = DECIDING
    alpha: float = 0.01  # chance of any false rejection among the deciding tests
    correction: str = "holm"
    min_stratum: int = MIN_STRATUM  # members a stratum needs to count
    min_probes: int = 200  # public probes below which an audit is inconclusive
    n_public: int = 1000  # public probes, unrotated: representation distance, alignment, dataset inference
    n_watermark: int = 500  # public images shown rotated, two views each
    n_private: int = 500  # private images, and as many public ones, for dataset inference
    rsa_directions: int = 16  # k of partial RSA
    rsa_shrinkage: float = 1e-3  # c of partial RSA
    ridge_penalty: float = 1e-2  # of the alignment, in units of the mean variance
    gmm_components: int = 10  # of the likelihood test; diagonal
    repeat_share: float = 0.05  # of the probes asked twice, shuffled and re-batched
    repeat_tolerance: float = 1e-3  # largest difference between the answers, in units of their root mean square
    seed: int = 0  # which images, which angles, which repeats

    def __post_init__(self) -> None:
        if self.rule != "turnmark-1" or self.correction != "holm":
            raise ClaimError(f"plan: unknown rule {self.rule!r} or correction {self.correction!r}", "update turnmark")
        if not self.deciding or not set(self.deciding) <= set(DECIDING):
            raise ClaimError("plan: no deciding test, or one that may not decide", f"any of: {', '.join(DECIDING)}")
        if not 0 < self.alpha <= 0.05:
            raise ClaimError(f"plan: alpha is {self.alpha}", "above 0, at most .05")
        if self.min_stratum < MIN_STRATUM:
            raise ClaimError(f"plan: strata of {self.min_stratum} members", f"at least {MIN_STRATUM}")
        for name in ("n_public", "n_watermark", "n_private", "rsa_directions", "gmm_components"):
            if getattr(self, name) < 2:
                raise ClaimError(f"plan: {name} is {getattr(self, name)}", "at least 2")
        numbers = (self.rsa_shrinkage, self.ridge_penalty, self.repeat_share, self.repeat_tolerance)
        if not all(math.isfinite(x) and x >= 0 for x in numbers):
            raise ClaimError("plan: a number is negative or not finite")

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON-ready values."""
        return {**asdict(self), "deciding": list(self.deciding)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Plan:
        """Returns the plan stored by `to_dict`.

        Raises:
            ClaimError: if a field is missing, unknown or out of range.
        """
        types: dict[str, Any] = {f.name: type(f.default) for f in fields(cls)}
        if set(value) != set(types):
            raise ClaimError("plan: fields missing or unknown", "the claim was written by another version")
        try:
            return cls(**{name: types[name](value[name]) for name in types})
        except (TypeError, ValueError) as e:
            raise ClaimError("plan: a field is malformed") from e
