"""The plan: every choice that could be tuned after seeing a suspect, fixed when the claim is built."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

from ownership.errors import ClaimError
from ownership.stats import MIN_STRATUM

PRIMARY_TESTS = ("partial_rsa_relative", "watermark_probability", "partial_rsa_rotated")
"""Tests that decide against a panel with encoders of the victim's size (rule 4); all others are shown only."""

PRIMARY_TESTS_SMALL_OR_PUBLIC = ("partial_rsa",)
"""Tests that decide against smaller and public encoders alone (docs/adr/0008)."""

ELIGIBLE_TESTS = tuple(
    dict.fromkeys((*PRIMARY_TESTS, *PRIMARY_TESTS_SMALL_OR_PUBLIC, "watermark_success", "watermark_auc"))
)
"""Tests that a plan may name; `partial_rsa` decided before docs/adr/0010, other readings before 0019, 0023."""

REQUIRED_STRATA = ("plain", "watermarked")
"""Strata a claim should have; a missing one is an innocent explanation not excluded (rule 2)."""

SMALL_OR_PUBLIC_STRATA = ("small", "public")
"""What an owner of a large model can have: encoders of less capacity and training, of any kind; published encoders."""

MIN_RELATIVE_SIMILARITY = 0.6
"""Closeness from which partial RSA decides against a panel without encoders of the victim's size (docs/adr/0008)."""

ROTATION_INVARIANT_STRATA = ("rotation_invariant", "distilled")
"""Those that answer alike however an image is turned: trained on rotated views; taught so by another independent."""

STRATA = (*REQUIRED_STRATA, "sibling", *ROTATION_INVARIANT_STRATA, *SMALL_OR_PUBLIC_STRATA)
"""Plain; marked by somebody else; grown from the victim's public checkpoint; see above."""

SINCE_2: dict[str, Any] = {"interim_queries": (), "interim_alpha_shares": (), "n_rotated": 300, "n_rotations": 4}
"""Fields that plans of rule turnmark-1 do not have, with values that change nothing for them."""

MAX_INTERIM_ANALYSES = 2
"""Looks before the last one."""

MIN_INTERIM_QUERIES = 100
"""Queries below which no look can decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Tests, error rate, correction, verdict rule, sizes and seed of every audit of a claim."""

    rule: str = "turnmark-2"  # the verdict rule, ownership.verdict.rule.decide; "turnmark-1" knows no looks
    primary: tuple[str, ...] = PRIMARY_TESTS
    alpha: float = 0.01  # chance of any false rejection among the deciding tests, over all looks
    interim_queries: tuple[int, ...] = (
        250,
        500,
    )  # queries after which an audit may already decide; the last look is at all
    interim_alpha_shares: tuple[float, ...] = (0.2, 0.3)  # of alpha, spent at those; what remains is for the last look
    correction: str = "holm"
    min_stratum: int = MIN_STRATUM  # members a stratum needs to count
    min_probes: int = 200  # public probes below which an audit is inconclusive
    n_public: int = 1000  # public probes, unrotated: representation distance, alignment, dataset inference
    n_watermark: int = 500  # public images shown rotated, two views each
    n_rotated: int = 1000  # public probes that are also shown turned, for the invariant reading of partial RSA
    n_rotations: int = 2  # times each, at random angles (docs/adr/0018)
    n_private: int = 500  # private images, and as many public ones, for dataset inference
    rsa_directions: int = 32  # k of partial RSA (docs/adr/0006)
    rotated_directions: int = 32  # k of the invariant reading (docs/adr/0025)
    rsa_shrinkage: float = 1e-2  # c of partial RSA
    ridge_penalty: float = 1e-2  # of the alignment, in units of the mean variance
    gmm_components: int = 10  # of the likelihood test; diagonal
    repeat_share: float = 0.05  # of the probes asked twice, shuffled and re-batched
    repeat_tolerance: float = 1e-3  # largest difference between the answers, in units of their root mean square
    seed: int = 0  # which images, which angles, which repeats

    def __post_init__(self) -> None:
        if self.rule not in ("turnmark-1", "turnmark-2") or self.correction != "holm":
            raise ClaimError(f"plan: unknown rule {self.rule!r} or correction {self.correction!r}", "update turnmark")
        if self.interim_queries and self.rule == "turnmark-1":
            raise ClaimError("plan: rule turnmark-1 knows no looks", "use rule turnmark-2")
        increasing = all(a < b for a, b in pairwise((MIN_INTERIM_QUERIES - 1, *self.interim_queries)))
        if len(self.interim_queries) > MAX_INTERIM_ANALYSES or not increasing:
            raise ClaimError(
                f"plan: looks {self.interim_queries}",
                f"at most {MAX_INTERIM_ANALYSES}, ascending, from {MIN_INTERIM_QUERIES} queries on",
            )
        shares = self.interim_alpha_shares
        if len(shares) != len(self.interim_queries) or not all(x > 0 for x in shares) or not sum(shares) < 1:
            raise ClaimError(
                f"plan: shares {shares} of alpha for {len(self.interim_queries)} looks", "one each, sum below 1"
            )
        if not self.primary or not set(self.primary) <= set(ELIGIBLE_TESTS):
            raise ClaimError(
                "plan: no deciding test, or one that may not decide", f"any of: {', '.join(ELIGIBLE_TESTS)}"
            )
        if not 0 < self.alpha <= 0.05:
            raise ClaimError(f"plan: alpha is {self.alpha}", "above 0, at most .05")
        if self.min_stratum < MIN_STRATUM:
            raise ClaimError(f"plan: strata of {self.min_stratum} members", f"at least {MIN_STRATUM}")
        probes = ("n_public", "n_watermark", "n_rotated", "n_private")
        for name in (*probes, "rsa_directions", "rotated_directions", "gmm_components"):
            if getattr(self, name) < 2:
                raise ClaimError(f"plan: {name} is {getattr(self, name)}", "at least 2")
        numbers = (self.rsa_shrinkage, self.ridge_penalty, self.repeat_share, self.repeat_tolerance)
        if not all(math.isfinite(x) and x >= 0 for x in numbers):
            raise ClaimError("plan: a number is negative or not finite")
        if self.n_rotations < 1:
            raise ClaimError(f"plan: turns is {self.n_rotations}", "at least 1")

    @property
    def final_alpha(self) -> float:
        """Alpha of the last look, at all probes."""
        return self.alpha * (1 - sum(self.interim_alpha_shares))

    def sizes(self, queries: int, *, watermark: bool) -> dict[str, int]:
        """Returns how many probes of each deciding set a look asks; the repeats are counted in `queries` too.

        >>> Plan().sizes(500, watermark=True)
        {'public': 350, 'watermark': 125}
        """
        session = queries - round(self.repeat_share * queries)
        watermarked = queries // 4 if watermark else 0
        return {"public": session - watermarked, "watermark": watermarked} if watermark else {"public": session}

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON-ready values, as it was written when it was made.

        Plans of rule turnmark-1 knew no looks; plans of before docs/adr/0018 took `rsa_directions` for both readings.
        """
        value = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        if self.rotated_directions == self.rsa_directions or self.rule == "turnmark-1":
            del value["rotated_directions"]
        if self.rule == "turnmark-1":
            value = {k: v for k, v in value.items() if k not in SINCE_2}
        return value

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Plan:
        """Returns the plan stored by `to_dict`.

        Raises:
            ClaimError: if a field is missing, unknown or out of range.
        """
        stated = set(value)
        if value.get("rule") == "turnmark-1":
            value = {**value, **SINCE_2}
        value = {"rotated_directions": value.get("rsa_directions"), **value}
        types: dict[str, Any] = {f.name: type(f.default) for f in fields(cls)}
        later = {*SINCE_2, "rotated_directions"} if value.get("rule") == "turnmark-1" else set()
        if set(value) != set(types) or stated & later:
            raise ClaimError("plan: fields missing or unknown", "the claim was written by another version")
        try:
            return cls(**{name: types[name](value[name]) for name in types})
        except (TypeError, ValueError) as e:
            raise ClaimError("plan: a field is malformed") from e
