"""The plan of a claim: every choice that could be tuned after seeing a suspect, fixed when the claim is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import Any

from ownership.errors import ClaimError
from ownership.stats import MIN_STRATUM

RULE = "turnmark-1"
"""The verdict rule, implemented by `ownership.verdict.rule.decide`."""

PRIMARY_TESTS = ("partial_rsa_relative", "watermark_probability", "partial_rsa_rotated")
"""Primary tests against a panel with encoders of the victim's size; all other tests are secondary."""

PRIMARY_TESTS_SMALL_OR_PUBLIC = ("partial_rsa",)
"""Primary tests against a panel of smaller and public encoders alone (docs/adr/0008)."""

ELIGIBLE_TESTS = tuple(
    dict.fromkeys((*PRIMARY_TESTS, *PRIMARY_TESTS_SMALL_OR_PUBLIC, "watermark_success", "watermark_auc"))
)
"""Tests that a plan may name as primary."""

REQUIRED_STRATA = ("plain", "watermarked")
"""Strata a claim should have. Without one of them, one alternative explanation of a similarity is not excluded."""

SMALL_OR_PUBLIC_STRATA = ("small", "public")
"""Strata for an owner of a large model: encoders of less capacity and training, of any kind; published encoders."""

MIN_RELATIVE_SIMILARITY = 0.6
"""Relative similarity from which partial RSA rejects where no stratum has the victim's size (docs/adr/0008)."""

ROTATION_INVARIANT_STRATA = ("rotation_invariant", "distilled")
"""Strata of rotation-invariant encoders: trained on rotated views; distilled from another independent encoder."""

STRATA = (*REQUIRED_STRATA, "sibling", *ROTATION_INVARIANT_STRATA, *SMALL_OR_PUBLIC_STRATA)
"""All strata of a panel. "sibling": fine-tuned from the victim's public base checkpoint."""

MAX_INTERIM_ANALYSES = 2
"""Largest number of interim analyses."""

MAX_DECOYS = 9_999_999
"""Largest number of keys that a key test draws anew; they cost about two seconds a million and map."""

MIN_KEY_ALPHA = 1e-6
"""Smallest alpha of the key test: the smallest that so many decoys can reach at every analysis."""

MAX_SIZE, MAX_ROTATIONS = 10_000_000, 1000
"""Largest number of probes, directions or components; largest number of rotated copies of a probe."""

MAX_REPEAT_SHARE = 0.5
"""Largest share of the queries that are repeated ones."""

MIN_INTERIM_QUERIES = 100
"""Smallest number of queries of an interim analysis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Tests, error rate, correction, verdict rule, sizes and seed of every audit of a claim.

    Attributes:
        rule: Name of the verdict rule.
        primary: Names of the primary tests.
        key_alpha: Probability that the key test rejects for an independent suspect, over all analyses.
        twins_alpha: Probability that the test of twins rejects for an independent suspect; at the final analysis only.
        alpha: Probability of any false rejection among the primary tests, over all analyses.
        interim_queries: Numbers of queries after which an interim analysis may end the audit.
        interim_alpha_shares: Share of alpha spent at each interim analysis; the final analysis has the rest.
        correction: Correction for the number of primary tests.
        min_stratum: Members that a stratum needs to be tested against.
        min_probes: Number of public probes below which an audit is inconclusive.
        n_public: Public probes, not rotated: representation distance, alignment, dataset inference.
        n_watermark: Public images of the watermark probes, two rotated views each.
        n_rotated: Public probes that are also shown rotated, for the rotation-averaged partial RSA.
        n_rotations: Rotated copies of each, at random angles (docs/adr/0018).
        n_private: Private images, and as many public ones, for dataset inference.
        rsa_directions: Number k of directions of partial RSA (docs/adr/0006).
        rotated_directions: Number k of directions of the rotation-averaged partial RSA (docs/adr/0025).
        rsa_shrinkage: Constant c of partial RSA.
        ridge_penalty: Penalty of the alignment, in units of the mean variance.
        gmm_components: Components of the Gaussian mixture of dataset inference; diagonal covariances.
        repeat_share: Share of the probes that is queried twice, shuffled and in other batches.
        repeat_tolerance: Largest difference between repeated responses, in units of their spread.
        seed: Seed of the choice of images, angles and repeated probes.
    """

    rule: str = RULE
    key_alpha: float = 1e-4
    twins_alpha: float = 0.01
    primary: tuple[str, ...] = PRIMARY_TESTS
    alpha: float = 0.01
    interim_queries: tuple[int, ...] = (250, 500)
    interim_alpha_shares: tuple[float, ...] = (0.2, 0.3)
    correction: str = "holm"
    min_stratum: int = MIN_STRATUM
    min_probes: int = 200
    n_public: int = 1000
    n_watermark: int = 500
    n_rotated: int = 1000
    n_rotations: int = 2
    n_private: int = 500
    rsa_directions: int = 32
    rotated_directions: int = 32
    rsa_shrinkage: float = 1e-2
    ridge_penalty: float = 1e-2
    gmm_components: int = 10
    repeat_share: float = 0.05
    repeat_tolerance: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rule != RULE or self.correction != "holm":
            raise ClaimError(f"plan: unknown rule {self.rule!r} or correction {self.correction!r}", "update turnmark")
        self._check_interim_analyses()
        if not set(self.primary) <= set(ELIGIBLE_TESTS):
            raise ClaimError("plan: a test that cannot be primary", f"any of: {', '.join(ELIGIBLE_TESTS)}")
        if not 0 < self.alpha <= 0.05:
            raise ClaimError(f"plan: alpha is {self.alpha}", "above 0, at most 0.05")
        if not 0 < self.key_alpha <= 0.05:
            raise ClaimError(f"plan: key_alpha is {self.key_alpha}", "above 0, at most 0.05")
        if not 0 < self.twins_alpha <= 0.05:
            raise ClaimError(f"plan: twins_alpha is {self.twins_alpha}", "above 0, at most 0.05")
        if self.min_stratum < MIN_STRATUM:
            raise ClaimError(f"plan: strata of {self.min_stratum} members", f"at least {MIN_STRATUM}")
        probes = ("n_public", "n_watermark", "n_rotated", "n_private")
        for name in (*probes, "rsa_directions", "rotated_directions", "gmm_components"):
            if not 2 <= getattr(self, name) <= MAX_SIZE:
                raise ClaimError(f"plan: {name} is {getattr(self, name)}", f"at least 2, at most {MAX_SIZE}")
        numbers = (self.rsa_shrinkage, self.ridge_penalty, self.repeat_share, self.repeat_tolerance)
        if not all(math.isfinite(x) and x >= 0 for x in numbers):
            raise ClaimError("plan: a number is negative or not finite")
        if self.repeat_share > MAX_REPEAT_SHARE:
            raise ClaimError(f"plan: repeat_share is {self.repeat_share}", f"at most {MAX_REPEAT_SHARE}")
        if not 1 <= self.n_rotations <= MAX_ROTATIONS:
            raise ClaimError(f"plan: n_rotations is {self.n_rotations}", f"at least 1, at most {MAX_ROTATIONS}")
        if not 0 <= self.seed < 2**32:
            raise ClaimError(f"plan: seed is {self.seed}", "from 0, below 2^32")

    def _check_interim_analyses(self) -> None:
        increasing = all(a < b for a, b in pairwise((MIN_INTERIM_QUERIES - 1, *self.interim_queries)))
        if len(self.interim_queries) > MAX_INTERIM_ANALYSES or not increasing:
            raise ClaimError(
                f"plan: interim analyses after {self.interim_queries} queries",
                f"at most {MAX_INTERIM_ANALYSES}, ascending, from {MIN_INTERIM_QUERIES} queries on",
            )
        shares = self.interim_alpha_shares
        if len(shares) != len(self.interim_queries) or not all(x > 0 for x in shares) or not sum(shares) < 1:
            raise ClaimError(
                f"plan: shares {shares} of alpha for {len(self.interim_queries)} interim analyses",
                "one each, sum below 1",
            )

    @property
    def decoys(self) -> int:
        """Return how many keys the key test draws anew: so many that 10 may reach alpha, at least 999.

        >>> Plan().decoys, Plan(key_alpha=0.05).decoys
        (99999, 999)
        """
        return min(MAX_DECOYS, max(999, round(10 / self.key_alpha) - 1))

    @property
    def final_share(self) -> float:
        """Return the share of alpha that is left for the final analysis, at all probes."""
        return 1 - sum(self.interim_alpha_shares)

    @property
    def final_alpha(self) -> float:
        """Return the alpha of the primary tests at the final analysis."""
        return self.alpha * self.final_share

    def share(self, queries: int) -> float:
        """Return the share of alpha of the interim analysis after `queries` queries."""
        return dict(zip(self.interim_queries, self.interim_alpha_shares, strict=True))[queries]

    def sizes(self, queries: int, *, watermark: bool) -> dict[str, int]:
        """Return the number of probes of each set in an interim analysis.

        Args:
            queries: Queries of the analysis, repeated ones included.
            watermark: Whether the claim has watermark probes.

        >>> Plan().sizes(500, watermark=True)
        {'public': 350, 'watermark': 125}
        """
        session = queries - round(self.repeat_share * queries)
        watermarked = queries // 4 if watermark else 0
        return {"public": session - watermarked, "watermark": watermarked} if watermark else {"public": session}

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-ready values, with every field."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def feasible(self, probes: Mapping[str, int]) -> Plan:
        """Return the plan without interim analyses that need all probes; their alpha goes to the final analysis.

        Args:
            probes: Name of a probe set -> number of its probes.
        """
        kept = [
            (n, share)
            for n, share in zip(self.interim_queries, self.interim_alpha_shares, strict=True)
            if all(probes[name] > k for name, k in self.sizes(n, watermark="watermark" in probes).items())
        ]
        return replace(
            self, interim_queries=tuple(n for n, _ in kept), interim_alpha_shares=tuple(share for _, share in kept)
        )

    def check_key_test(self, probes: Mapping[str, int], directions: int) -> None:
        """Check that nothing of the key test is chosen by the plan but its alpha.

        With the plan chosen after a suspect is known, an analysis after a lucky number of queries, or a lucky number of
        decoys, would reject more often than alpha. Both are therefore fixed: the usual interim analyses that the probes
        allow, or none, and `decoys`.

        Args:
            probes: Name of a probe set of the claim -> number of its probes.
            directions: Of the key.

        Raises:
            ClaimError: If interim analyses or repeated probes are others, or key_alpha needs too many decoys.
        """
        usual = Plan()
        allowed = usual.feasible(probes)
        chosen = self.interim_queries, self.interim_alpha_shares
        if chosen not in (((), ()), (allowed.interim_queries, allowed.interim_alpha_shares)):
            raise ClaimError(
                f"plan: interim analyses after {self.interim_queries} queries in a claim with a key",
                f"these are fixed: {allowed.interim_queries} with shares {allowed.interim_alpha_shares}, or none",
            )
        if self.interim_queries and self.repeat_share != usual.repeat_share:
            raise ClaimError(
                f"plan: repeat_share is {self.repeat_share} in a claim with a key", str(usual.repeat_share)
            )
        if self.key_alpha < MIN_KEY_ALPHA:
            raise ClaimError(f"plan: key_alpha is {self.key_alpha}", f"at least {MIN_KEY_ALPHA}")
        if self.decoys * directions > 4 * MAX_DECOYS:
            raise ClaimError(f"plan: {self.decoys} decoys of {directions} directions each", "a larger key_alpha")

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Plan:
        """Return the plan stored by `to_dict`.

        Raises:
            ClaimError: If a field is missing, unknown or out of range.
        """
        usual = cls()
        if set(value) != {f.name for f in fields(cls)}:
            raise ClaimError("plan: fields missing or unknown", "the claim was written by another version")
        try:
            return cls(**{name: _of_type(value[name], getattr(usual, name)) for name in value})
        except (TypeError, ValueError, OverflowError) as e:
            raise ClaimError("plan: a field is malformed") from e


def _of_type(value: object, like: object) -> Any:
    """Return a value of JSON of the type of another one; raise TypeError for any other, true and 1.0 for 1 included."""
    if isinstance(like, tuple):
        if not isinstance(value, list):
            raise TypeError("not a list")
        return tuple(_of_type(item, like[0]) for item in value)
    if isinstance(like, float) and type(value) is int:
        return float(value)
    if type(value) is not type(like):
        raise TypeError(f"not {type(like).__name__}")
    return value
