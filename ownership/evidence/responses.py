"""Representations of the probes by one encoder, and the context that its scores need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ownership.evidence.similarity import Array, Structure, directions, rsa_vector
from ownership.keyed.readings import Readings, encoder_readings
from ownership.plan import Plan
from ownership.watermark import RotationPredictor


class NotApplicable(Exception):
    """A statistic cannot be computed on these representations. The message states the reason, for the report."""


@dataclass(eq=False, slots=True)
class Responses:
    """One encoder's representations of the probes.

    Sets of probes, one image a row:

    - `public` `(n, d)`: public probes.
    - `rotated` `(r t, d)`: r rotated copies of the first t public probes, copy after copy.
    - `watermark` `(2 w, d)`: rotated probes of the watermark.
    - `private` `(p, d)` and `private_views` `(2 p, d)`: private images and two augmented views of each.
    - `outside_views` `(2 p, d)`: two augmented views of the first p public probes.
    """

    name: str
    sets: dict[str, NDArray[np.float32]]
    _rsa: dict[str, Structure] = field(default_factory=dict, repr=False)
    _directions: dict[int, Array] = field(default_factory=dict, repr=False)
    _readings: dict[int, dict[str, Readings]] = field(default_factory=dict, repr=False)

    @property
    def dim(self) -> int:
        """Dimension of a representation."""
        return int(self.sets["public"].shape[1])

    def get(self, name: str) -> Array:
        """Return the representations of a probe set, `(n, d)` float64.

        Raises:
            NotApplicable: if the claim has no such set.
        """
        if name not in self.sets:
            raise NotApplicable(f"the claim has no {name.replace('_', ' ')} probes")
        return self.sets[name].astype(np.float64)

    def first(self, sizes: dict[str, int]) -> Responses:
        """Return the representations of the first `sizes[name]` probes of each named set, without the other sets."""
        return Responses(self.name, {k: self.sets[k][:n] for k, n in sizes.items() if k in self.sets})

    def directions(self, count: int) -> Array:
        """Return the leading directions of the public responses (`similarity.directions`), computed once."""
        if count not in self._directions:
            self._directions[count] = directions(self.get("public"), count)
        return self._directions[count]

    def readings(self, features: Mapping[str, Array], n: int) -> dict[str, Readings]:
        """Return how well the first n public responses predict the features of each map, computed once.

        Args:
            features: Name of a feature map -> features of the public probes, `(probes, D)`.
            n: Number of probes.
        """
        if n not in self._readings:
            some = {name: rows[:n] for name, rows in features.items()}
            self._readings[n] = encoder_readings(self.get("public")[:n], some)
        return self._readings[n]

    def rsa(self, plan: Plan) -> Structure:
        """Return the similarity structure over the public probes (`rsa_vector`), computed once."""
        return self._cached("public", plan, plan.rsa_directions, lambda: self.get("public"))

    def rsa_unrotated(self, plan: Plan) -> Structure:
        """Return the similarity structure over those public probes that also have rotated copies, computed once."""

        def unrotated() -> Array:
            return self.get("public")[: len(self.get("rotated")) // plan.n_rotations]

        return self._cached("unrotated", plan, plan.rotated_directions, unrotated)

    def rsa_rotated(self, plan: Plan) -> Structure:
        """Return the similarity structure over the mean responses to each probe's rotated copies, computed once."""

        def mean() -> Array:
            out: Array = self.get("rotated").reshape(plan.n_rotations, -1, self.dim).mean(0)
            return out

        return self._cached("rotated", plan, plan.rotated_directions, mean)

    def _cached(self, key: str, plan: Plan, directions: int, responses: Callable[[], Array]) -> Structure:
        if key not in self._rsa:
            self._rsa[key] = Structure(rsa_vector(responses(), directions, plan.rsa_shrinkage))
        return self._rsa[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringContext:
    """What statistics need beside the suspect's responses: those of victim and panel, and the owner's secrets."""

    plan: Plan
    victim: Responses
    panel: tuple[Responses, ...]
    baselines: tuple[Array, ...] = ()  # directions of untrained features of the public probes, each (n, at most 64)
    teachers: dict[str, str] = field(default_factory=dict)  # distilled control -> its teacher in the panel, or ""
    watermark_labels: NDArray[np.int64] | None = None  # (2 w,), 0 or 1
    watermark_sources: NDArray[np.int64] | None = None  # (2 w,), index of the public probe that was rotated
    predictor: RotationPredictor | None = None
    projection_head: nn.Module | None = None

    def first(self, sizes: dict[str, int]) -> ScoringContext:
        """Return the context of an interim analysis: the first `sizes[name]` probes of each named set."""
        watermarked = sizes.get("watermark", 0)
        labels, sources = (
            None if x is None else x[:watermarked] for x in (self.watermark_labels, self.watermark_sources)
        )
        return replace(
            self,
            victim=self.victim.first(sizes),
            panel=tuple(m.first(sizes) for m in self.panel),
            baselines=tuple(directions(b[: sizes["public"]]) for b in self.baselines),
            watermark_labels=labels,
            watermark_sources=sources,
        )

    def without(self, member: Responses) -> ScoringContext:
        """Return the context for scoring a panel member: without that member and, if it is distilled, its teacher.

        The teacher is left out because the teacher of a distilled suspect is not in the panel either.
        """
        teacher = self.teachers.get(member.name)
        return replace(self, panel=tuple(m for m in self.panel if m is not member and m.name != teacher))

    def replacing(self, member: Responses, other: Responses) -> ScoringContext:
        """Return the context with a member replaced by another encoder, and without the member's teacher."""
        teacher = self.teachers.get(member.name)
        panel = tuple(other if m is member else m for m in self.panel if m.name != teacher)
        return replace(self, panel=panel)

    @property
    def undistilled(self) -> tuple[Responses, ...]:
        """The panel without its distilled controls, whose representations approximate their teachers'."""
        return tuple(m for m in self.panel if m.name not in self.teachers)
