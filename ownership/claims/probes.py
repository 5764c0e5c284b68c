"""Probes: the images every encoder is asked about, and the asking.

Probes are data (rule 9): stored as uint8 after rotation and augmentation, so that victim, panel and suspect see
exactly the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ownership.encoders.images import as_input, as_uint8, check_images, three_channels
from ownership.errors import DataError
from ownership.evidence.querying import Probes
from ownership.plan import Plan
from ownership.watermark import TURN, WatermarkKey, rotate, rotated_pairs

View = Callable[[Tensor, torch.Generator], Tensor]
"""Images `(n, c, h, w)` float in `[0, 1]` and a generator -> one random view of each, same shape and range."""


def split_public(n: int, plan: Plan) -> tuple[Tensor, Tensor]:
    """Returns indices of the public images that become probes, and of the rest, for reference surrogates.

    At most `plan.n_public`, and at most two thirds of the n images, so that something is left to steal with.
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(plan.seed))
    count = min(plan.n_public, max(1, 2 * n // 3))
    return order[:count], order[count:]


def make_probes(
    private: Tensor, public: Tensor, plan: Plan, *, key: WatermarkKey | None = None, view: View | None = None
) -> tuple[Probes, tuple[Tensor, Tensor, Tensor] | None]:
    """Returns the probe sets and, with a key, label, angle and public probe of each watermark probe.

    The two rotated views of an image follow each other, in random order, so that the first so many of them are of the
    first public probes, which a look has asked, too.

    Args:
        private: images the victim was trained on, `(n, c, h, w)` uint8.
        public: images it was not trained on, the same size.
        plan: how many of each, and the seed.
        key: where the circle is cut; without one there are no watermark probes.
        view: random augmentation for dataset inference; without one those two scores are skipped.

    Raises:
        DataError: if the images do not fit each other.
    """
    check_images(private, DataError, minimum=2)
    check_images(public, DataError, minimum=2)
    if private.shape[1] != public.shape[1]:
        private, public = three_channels(private), three_channels(public)
    if private.shape[1:] != public.shape[1:]:
        raise DataError(
            f"private images are {tuple(private.shape[-2:])} pixels, public ones {tuple(public.shape[-2:])}",
            "bring both to one size",
        )
    generator = torch.Generator().manual_seed(plan.seed + 1)
    chosen, _ = split_public(len(public), plan)
    count = min(plan.n_private, len(private), len(chosen))
    probes = {
        "public": public[chosen],
        "private": private[torch.randperm(len(private), generator=generator)[:count]],
    }
    if view is not None:
        for name, source in (("private_views", probes["private"]), ("outside_views", probes["public"][:count])):
            probes[name] = torch.cat([as_uint8(view(as_input(source), generator)) for _ in range(2)])
    upright = as_input(probes["public"][: plan.n_rotated]).repeat(plan.n_rotations, 1, 1, 1)
    probes["rotated"] = as_uint8(rotate(upright, torch.rand(len(upright), generator=generator) * TURN))
    watermarked = None
    if key is not None:
        views, labels, angles = rotated_pairs(as_input(probes["public"][: plan.n_watermark]), key, generator)
        shown = torch.arange(len(views) // 2)
        first = torch.randint(2, shown.shape, generator=generator)
        order = torch.stack([shown + first * len(shown), shown + (1 - first) * len(shown)], 1).flatten()
        probes["watermark"], watermarked = (
            as_uint8(views[order]),
            (labels[order], angles[order], shown.repeat_interleave(2)),
        )
    return {name: images.contiguous() for name, images in probes.items()}, watermarked


def check_shown(images: Tensor, probes: Probes) -> None:
    """Raises ValueError unless `images` names one of the public probes for each rotated one."""
    if images.dtype != torch.int64 or images.shape != (len(probes["watermark"]),):
        raise ValueError("not one image for each rotated probe")
    if not 0 <= int(images.min()) <= int(images.max()) < len(probes["public"]):
        raise ValueError("rotated probes of images that are not there")


def check_rows(sets: dict[str, NDArray[np.float32]], probes: Probes) -> None:
    """Raises ValueError unless there is one answer for each probe of every set."""
    if set(sets) != set(probes) or any(sets[k].ndim != 2 or len(sets[k]) != len(probes[k]) for k in probes):
        raise ValueError("representations do not fit the probes")
