"""An encoder's answers to the probes, and what scores are taken against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ownership.evidence.similarity import Array, Structure, rsa_vector
from ownership.plan import Plan
from ownership.watermark import RotationPredictor


class NotApplicable(Exception):
    """A statistic cannot be computed on these answers; the text says why and goes into the report."""


@dataclass(eq=False, slots=True)
class Responses:
    """One encoder's representations of the probes.

    Sets (rows are images): `public` `(n, d)`; `turned` `(r t, d)`, r turned copies of the first t public probes (all
    first copies, then all second ones); `watermark` `(2 w, d)`; for dataset inference `private` `(p, d)` with
    `private_views` `(2 p, d)`, and `outside_views` `(2 p, d)`, views of the first p public probes.
    """

    name: str
    sets: dict[str, NDArray[np.float32]]
    _rsa: dict[str, Structure] = field(default_factory=dict, repr=False)

    @property
    def dim(self) -> int:
        """Length of a representation."""
        return int(self.sets["public"].shape[1])

    def get(self, name: str) -> Array:
        """Returns the representations of a probe set in float64.

        Raises:
            NotApplicable: if the claim has no such set.
        """
        if name not in self.sets:
            raise NotApplicable(f"the claim has no {name.replace('_', ' ')} probes")
        return self.sets[name].astype(np.float64)

    def first(self, sizes: dict[str, int]) -> Responses:
        """Returns the answers to the first so many probes of the named sets; without the other sets."""
        return Responses(self.name, {k: self.sets[k][:n] for k, n in sizes.items() if k in self.sets})

    def rsa(self, plan: Plan) -> Structure:
        """Returns the similarity structure over the public probes (`rsa_vector`), computed once."""
        return self._kept("public", plan, plan.rsa_directions, lambda: self.get("public"))

    def rsa_unrotated(self, plan: Plan) -> Structure:
        """Returns the same over the public probes that are also shown turned, as the invariant reading takes it."""

        def shown() -> Array:
            return self.get("public")[: len(self.get("rotated")) // plan.n_rotations]

        return self._kept("upright", plan, plan.rotated_directions, shown)

    def rsa_rotated(self, plan: Plan) -> Structure:
        """Returns the same over the mean answer to each probe's turned copies."""

        def mean() -> Array:
            out: Array = self.get("rotated").reshape(plan.n_rotations, -1, self.dim).mean(0)
            return out

        return self._kept("rotated", plan, plan.rotated_directions, mean)

    def _kept(self, key: str, plan: Plan, directions: int, responses: Callable[[], Array]) -> Structure:
        if key not in self._rsa:
            self._rsa[key] = Structure(rsa_vector(responses(), directions, plan.rsa_shrinkage))
        return self._rsa[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringContext:
    """What a score is taken against: the victim's answers, the panel's, and the owner's secrets."""

    plan: Plan
    victim: Responses
    panel: tuple[Responses, ...]
    teachers: dict[str, str] = field(default_factory=dict)  # of the panel's students: member it was taught by, or ""
    watermark_labels: NDArray[np.int64] | None = None  # (2 w,)
    watermark_images: NDArray[np.int64] | None = None  # (2 w,), which public probe each shows; None: not known
    predictor: RotationPredictor | None = None
    projection_head: nn.Module | None = None

    def first(self, sizes: dict[str, int]) -> ScoringContext:
        """Returns the context of a look: only the first so many probes of the named sets."""
        watermarked = sizes.get("watermark", 0)
        labels, images = (
            None if x is None else x[:watermarked] for x in (self.watermark_labels, self.watermark_images)
        )
        return replace(
            self,
            victim=self.victim.first(sizes),
            panel=tuple(m.first(sizes) for m in self.panel),
            watermark_labels=labels,
            watermark_images=images,
        )

    def without(self, member: Responses) -> ScoringContext:
        """Returns the context with one member left out of the panel, and whom it was taught by, if anybody.

        A suspect's teacher is not in the panel either.
        """
        teacher = self.teachers.get(member.name)
        return replace(self, panel=tuple(m for m in self.panel if m is not member and m.name != teacher))

    def swapping(self, member: Responses, other: Responses) -> ScoringContext:
        """Returns the context with one member replaced by another encoder, and without the one's teacher."""
        teacher = self.teachers.get(member.name)
        panel = tuple(other if m is member else m for m in self.panel if m.name != teacher)
        return replace(self, panel=panel)

    @property
    def teaching(self) -> tuple[Responses, ...]:
        """The panel without its students, whose answers are their teachers', blurred."""
        return tuple(m for m in self.panel if m.name not in self.teachers)
