"""Querying an encoder with probes, and whether its answers can be tested."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ownership.encoders.images import (
    EncoderLike,
    represent,
)
from ownership.errors import OwnershipError, SuspectError
from ownership.evidence.responses import Responses
from ownership.io.text import printable
from ownership.plan import Plan

Probes = dict[str, Tensor]
"""Name of a set -> uint8 images `(n, c, h, w)`; the sets are those of `ownership.evidence.responses.Responses`."""


def query(encoder: EncoderLike, probes: Probes, name: str) -> Responses:
    """Returns an encoder's answers to every probe set.

    Raises:
        SuspectError: if it cannot take the images, or its answers are not `(n, d)` real numbers.
    """
    sets = {}
    for set_name, images in probes.items():
        responses = _represent(encoder, images, name, batch_size=256)
        if responses.ndim != 2 or len(responses) != len(images) or not 1 <= responses.shape[1] <= 65536:
            raise SuspectError(
                f"{printable(name)}: answers {tuple(responses.shape)} to {len(images)} images, expected (n, d)",
                "an encoder gives one vector an image; export the pooled output",
            )
        sets[set_name] = responses.numpy()
    return Responses(name, sets)


def _represent(encoder: EncoderLike, images: Tensor, name: str, batch_size: int) -> Tensor:
    """`represent`, with everything a foreign network can raise turned into one line."""
    try:
        return represent(encoder, images, batch_size=batch_size)
    except OwnershipError:
        raise
    except Exception as e:  # torch and onnxruntime have no common base below Exception
        c, h, w = 3, *images.shape[-2:]
        first = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise SuspectError(
            f"{printable(name)} cannot take images of {c}x{h}x{w}: {printable(first)}",
            "it must accept the probes' size and three channels; put resizing inside the exported model",
        ) from e


def repeats(n: int, plan: Plan) -> int:
    """Returns how many of n probes are asked twice."""
    return min(n, max(8, round(plan.repeat_share * n)))


def repeated_probes(n: int, plan: Plan, count: int | None = None) -> NDArray[np.intp]:
    """Returns which of n probes are asked twice, in the order of asking: `count` of them, or `repeats(n, plan)`."""
    return np.random.default_rng(plan.seed).permutation(n)[: repeats(n, plan) if count is None else count]


def response_problems(
    responses: Responses, encoder: EncoderLike, probes: Probes, plan: Plan, *, again: int | None = None
) -> list[str]:
    """Returns why these answers cannot be tested (empty if they can): too few, not finite, constant, unstable.

    Some of the probes, drawn at random, are asked again, shuffled and in other batches; a network's answer to an image
    depends on that image alone.

    Args:
        responses: to the probes.
        encoder: asked again.
        probes: those that were asked.
        plan: limits and seed.
        again: how many are asked again; `plan.repeat_share` of them if not given.
    """
    problems = []
    public = responses.sets["public"]
    if len(public) < plan.min_probes:
        problems.append(f"too few probes: the claim has {len(public)} public probes, the plan asks {plan.min_probes}")
    everything = np.concatenate(list(responses.sets.values()))
    if not np.isfinite(everything).all():
        bad = int((~np.isfinite(everything)).any(1).sum())
        return [*problems, f"the answers to {bad} of {len(everything)} probes are not finite (NaN or infinite)"]
    scale = float(np.sqrt(np.mean(everything.astype(np.float64) ** 2)))
    spread = public.astype(np.float64) - public.astype(np.float64).mean(0)
    singular = np.linalg.svd(spread, compute_uv=False)
    if scale == 0 or singular[0] <= 1e-5 * scale * np.sqrt(len(public)):
        return [*problems, "the representations are constant: every image gets the same answer"]
    if len(singular) < 2 or singular[1] <= 1e-4 * singular[0]:
        problems.append("the representations are collapsed: they vary along one direction only")
    images = torch.cat(list(probes.values()))
    rows = repeated_probes(len(images), plan, again)
    repeated = _represent(encoder, images[torch.from_numpy(rows)], responses.name, batch_size=13).numpy()
    difference = float(np.abs(repeated - everything[rows]).max()) / scale
    if not difference <= plan.repeat_tolerance:
        problems.append(
            f"answers differ when asked again, shuffled and in other batches (largest difference {difference:.2g} of "
            "their root mean square): the suspect is random, stateful or depends on the batch"
        )
    return problems


def same_responses(a: Responses, b: Responses, tolerance: float = 1e-3) -> bool:
    """Returns whether two encoders answer the public probes alike, within `tolerance` of the root mean square."""
    return close(a.sets["public"], b.sets["public"], tolerance)


def close(x: NDArray[np.float32], y: NDArray[np.float32], tolerance: float = 1e-3) -> bool:
    """Returns whether two encoders' answers differ by `tolerance` of their root mean square at most."""
    if x.shape != y.shape:
        return False
    scale = float(np.sqrt(np.mean(x.astype(np.float64) ** 2)))
    return float(np.abs(x - y).max()) <= tolerance * scale
