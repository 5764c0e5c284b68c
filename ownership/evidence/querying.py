"""Query an encoder with probes, and check whether its responses can be tested."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ownership.encoders.images import EncoderLike, represent
from ownership.errors import OwnershipError, SuspectError
from ownership.evidence.responses import Responses
from ownership.io.text import printable
from ownership.plan import Plan

Probes = dict[str, Tensor]
"""Name of a set, as in `Responses` -> uint8 images `(n, c, h, w)`."""


class ProblemCode(StrEnum):
    """Why responses cannot be tested."""

    TOO_FEW_PROBES = "too_few_probes"
    NOT_FINITE = "not_finite"
    CONSTANT = "constant"
    COLLAPSED = "collapsed"
    UNSTABLE = "unstable"  # repeated queries get other responses
    FAILED = "failed"  # the suspect crashed, hung or took too much memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One reason why responses cannot be tested."""

    code: ProblemCode
    detail: str  # in words, with the numbers

    def __str__(self) -> str:
        return self.detail


def query(encoder: EncoderLike, probes: Probes, name: str) -> Responses:
    """Query an encoder with every probe set and return its responses.

    Args:
        encoder: the encoder.
        probes: the probe sets.
        name: of the encoder, for the responses and for messages.

    Raises:
        SuspectError: if the encoder cannot process the images, or its output is not `(n, d)` real numbers.
    """
    sets = {}
    for set_name, images in probes.items():
        responses = _represent(encoder, images, name, batch_size=256)
        if responses.ndim != 2 or len(responses) != len(images) or not 1 <= responses.shape[1] <= 65536:
            raise SuspectError(
                f"{printable(name)}: output {tuple(responses.shape)} for {len(images)} images, expected (n, d)",
                "an encoder gives one vector per image; export the pooled output",
            )
        sets[set_name] = responses.numpy()
    return Responses(name, sets)


def _represent(encoder: EncoderLike, images: Tensor, name: str, batch_size: int) -> Tensor:
    """Call `represent`; report every error that a foreign network can raise as one line."""
    try:
        return represent(encoder, images, batch_size=batch_size)
    except OwnershipError:
        raise
    except Exception as e:  # torch and onnxruntime have no common base below Exception
        c, h, w = 3, *images.shape[-2:]
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise SuspectError(
            f"{printable(name)} cannot process images of {c}x{h}x{w}: {printable(first)}",
            "it must accept the probes' size and three channels; include resizing in the exported model",
        ) from e


def n_repeats(n: int, plan: Plan) -> int:
    """Return how many of n probes are queried a second time."""
    return min(n, max(8, round(plan.repeat_share * n)))


def repeated_probes(n: int, plan: Plan, count: int | None = None) -> NDArray[np.intp]:
    """Return the indices of the probes that are queried a second time, in the order of the repeated queries.

    Args:
        n: number of probes.
        plan: its seed draws the indices.
        count: number of indices; `n_repeats(n, plan)` if None.
    """
    return np.random.default_rng(plan.seed).permutation(n)[: n_repeats(n, plan) if count is None else count]


def response_problems(
    responses: Responses, encoder: EncoderLike, probes: Probes, plan: Plan, *, again: int | None = None
) -> list[Problem]:
    """Return the reasons why responses cannot be tested: too few, not finite, constant, collapsed or unstable.

    Instability is tested by repeated queries: a random sample of the probes is queried again, shuffled and in batches
    of another size. A deterministic encoder's representation of an image depends on that image alone.

    Args:
        responses: to the probes.
        encoder: the encoder, for the repeated queries.
        probes: the probes that were queried.
        plan: limits and seed.
        again: number of repeated queries; the share `plan.repeat_share` of the probes if None.

    Returns:
        A problem for each reason; none if the responses can be tested.
    """
    problems: list[Problem] = []
    public = responses.sets["public"]

    def add(code: ProblemCode, detail: str) -> list[Problem]:
        problems.append(Problem(code=code, detail=detail))
        return problems

    if len(public) < plan.min_probes:
        add(
            ProblemCode.TOO_FEW_PROBES,
            f"too few probes: the claim has {len(public)} public probes, the plan requires {plan.min_probes}",
        )
    everything = np.concatenate(list(responses.sets.values()))
    if not np.isfinite(everything).all():
        bad = int((~np.isfinite(everything)).any(1).sum())
        detail = f"the responses to {bad} of {len(everything)} probes are not finite (NaN or infinite)"
        return add(ProblemCode.NOT_FINITE, detail)
    scale = float(np.sqrt(np.mean(everything.astype(np.float64) ** 2)))
    spread = public.astype(np.float64) - public.astype(np.float64).mean(0)
    singular = np.linalg.svd(spread, compute_uv=False)
    if scale == 0 or singular[0] <= 1e-5 * scale * np.sqrt(len(public)):
        return add(ProblemCode.CONSTANT, "the representations are constant: the same for every image")
    if len(singular) < 2 or singular[1] <= 1e-4 * singular[0]:
        add(ProblemCode.COLLAPSED, "the representations are collapsed: they vary along one direction only")
    images = torch.cat(list(probes.values()))
    rows = repeated_probes(len(images), plan, again)
    repeated = _represent(encoder, images[torch.from_numpy(rows)], responses.name, batch_size=13).numpy()
    difference = relative_difference(everything[rows], repeated, public)
    if not difference <= plan.repeat_tolerance:
        add(
            ProblemCode.UNSTABLE,
            "repeated queries of the same images, shuffled and in other batches, give different responses (largest "
            f"difference {difference:.2g} times the spread): the suspect is random, stateful or depends on the batch",
        )
    return problems


def relative_difference(x: NDArray[np.float32], y: NDArray[np.float32], among: NDArray[np.float32]) -> float:
    """Return how far two sets of responses to the same images are apart: the larger of two measures.

    - The largest difference, in units of the root mean square of all responses.
    - Of every image the difference that a twentieth of the components exceeds, each in units of its standard deviation;
      the largest over the images. Large components that agree cannot hide small ones that differ. Components that
      do not vary say nothing about an image and are left out.

    Args:
        x: `(n, d)`.
        y: `(n, d)`.
        among: `(m, d)`, the responses that root mean square and standard deviations are taken of.
    """
    gap, of = np.abs(x.astype(np.float64) - y), among.astype(np.float64)
    overall = float(gap.max()) / max(float(np.sqrt(np.mean(of**2))), np.finfo(np.float64).tiny)
    spread = of.std(0)
    varying = spread > 4 * np.finfo(np.float32).eps * np.abs(of).max(0)
    if not varying.any():
        return overall
    by_image = np.quantile(gap[:, varying] / spread[varying], 0.95, axis=1)
    return max(overall, float(by_image.max()))


def same_responses(a: Responses, b: Responses, tolerance: float = 1e-3) -> bool:
    """Return whether two encoders have the same responses to the public probes (`allclose_responses`)."""
    return allclose_responses(a.sets["public"], b.sets["public"], tolerance)


def allclose_responses(x: NDArray[np.float32], y: NDArray[np.float32], tolerance: float = 1e-3) -> bool:
    """Return whether representations `(n, d)` differ by at most a tolerance (`relative_difference`)."""
    return x.shape == y.shape and relative_difference(x, y, x) <= tolerance
