"""Probes: the images that every encoder is queried with.

Probes are stored as uint8 after rotation and augmentation, so that victim, panel and suspect see exactly the same
pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ownership.encoders.images import as_input, as_uint8, check_images, images_sha256, three_channels
from ownership.errors import DataError
from ownership.evidence.querying import Probes
from ownership.keyed.pool import KeyMaterial, drawn_probes
from ownership.plan import Plan
from ownership.watermark import TURN, WatermarkKey, rotate, rotated_pairs

View = Callable[[Tensor, torch.Generator], Tensor]
"""An augmentation: images `(n, c, h, w)` float in `[0, 1]`, generator -> one random view of each, same shape, range."""


@dataclass(frozen=True, eq=False, slots=True)
class ClaimImages:
    """The images that a claim is built from.

    Attributes:
        private: Images that the victim was trained on, `(n, c, h, w)` uint8, for dataset inference; None for none.
        public: Images that it was not trained on, of the same size: with a key, the images of its pool, or the probes
            that it drew; without one, at most two thirds become probes.
        view: Augmentation of the training, for dataset inference. Without one, the two scores that need views are
            skipped.
        description: Further facts for the claim's record, such as names of the data sets.
    """

    private: Tensor | None
    public: Tensor
    view: View | None = None
    description: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> dict[str, str]:
        """Return what the claim records about the images: the description, and digests and numbers of both sets."""
        stated = {
            **self.description,
            "public_sha256": images_sha256(self.public),
            "public_images": str(len(self.public)),
        }
        if self.private is None:
            return stated
        private = {"private_sha256": images_sha256(self.private), "private_images": str(len(self.private))}
        return stated | private


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class WatermarkProbes:
    """How each watermark probe was made; the images themselves are the probe set `watermark`.

    Attributes:
        labels: `(n,)` int64, 0 or 1: the sector into which the image was rotated.
        angles: `(n,)` float: the angle of rotation, in radians.
        sources: `(n,)` int64: index of the rotated image in the probe set `public`.
    """

    labels: Tensor
    angles: Tensor
    sources: Tensor

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that are stored beside the probes, by name."""
        return {f"watermark_{f.name}": getattr(self, f.name) for f in fields(self)}

    @classmethod
    def pop_from(cls, tensors: dict[str, Tensor]) -> Self | None:
        """Remove and return what `to_tensors` stored among other tensors; None if nothing was stored.

        Raises:
            KeyError: If only some of it is there.
        """
        names = [f.name for f in fields(cls)]
        if not any(f"watermark_{name}" in tensors for name in names):
            return None
        return cls(**{name: tensors.pop(f"watermark_{name}") for name in names})

    def check(self, probes: Probes) -> None:
        """Raise ValueError unless there is one label, angle and source for each watermark probe."""
        n = len(probes["watermark"])
        if self.sources.dtype != torch.int64 or {len(x) for x in (self.labels, self.angles, self.sources)} != {n}:
            raise ValueError("not one label, angle and source for each watermark probe")
        if not 0 <= int(self.sources.min()) <= int(self.sources.max()) < len(probes["public"]):
            raise ValueError("watermark probes of public probes that do not exist")


def split_public(public: Tensor, plan: Plan, material: KeyMaterial | None = None) -> tuple[Tensor, Tensor]:
    """Return the public images that become probes, and the rest, for reference surrogates.

    A key draws the probes from its pool. Without a key, at most `plan.n_public` and at most two thirds of the images
    become probes, so that some are left to extract reference surrogates with.

    Args:
        public: `(n, c, h, w)` uint8; with a key, the images of its pool in their order, or its probes.
        plan: Number of probes and seed, where there is no key.
        material: The key, with its probes.

    Raises:
        ClaimError: If the images are neither the pool of the key nor its probes.
    """
    if material is not None:
        if torch.equal(public, material.probes):
            return public, public[:0]
        rest = torch.ones(len(public), dtype=torch.bool)
        probes = drawn_probes(material.key, public)
        rest[material.key.probe_indices()] = False
        return probes, public[rest]
    order = torch.randperm(len(public), generator=torch.Generator().manual_seed(plan.seed))
    count = min(plan.n_public, max(1, 2 * len(public) // 3))
    return public[order[:count]], public[order[count:]]


def make_probes(
    images: ClaimImages,
    plan: Plan,
    *,
    material: KeyMaterial | None = None,
    key: WatermarkKey | None = None,
    panel: bool = True,
) -> tuple[Probes, WatermarkProbes | None]:
    """Return the probe sets and, with a rotation watermark, how each watermark probe was made.

    The two rotated views of an image follow each other, in random order. An interim analysis, which uses the first
    probes of each set, therefore queries the sources of its watermark probes, too.

    Args:
        images: Public and private images, and the augmentation of the training. Without one, the two scores of dataset
            inference that need views are skipped.
        plan: Number of probes of each set, and the seed.
        material: The key of the keyed watermark, which draws the public probes.
        key: The key of the rotation watermark. Without one there are no watermark probes.
        panel: Whether there is a panel. The sets that only its tests need are made only then.

    Raises:
        ClaimError: If the public images are not those of the key's pool.
        DataError: If the two sets of images have different sizes.
    """
    check_images(images.public, DataError, minimum=2)
    public, _ = split_public(images.public, plan, material)
    generator = torch.Generator().manual_seed(plan.seed + 1)
    probes = {"public": public}
    if panel and images.private is not None:
        probes |= _inference_probes(images.private, public, plan, images.view, generator)
        probes["public"] = probes["public"].expand(-1, probes["private"].shape[1], -1, -1)
    if panel:
        unrotated = as_input(probes["public"][: plan.n_rotated]).repeat(plan.n_rotations, 1, 1, 1)
        probes["rotated"] = as_uint8(rotate(unrotated, torch.rand(len(unrotated), generator=generator) * TURN))
    watermark = None
    if key is not None:
        views, labels, angles = rotated_pairs(as_input(probes["public"][: plan.n_watermark]), key, generator)
        source = torch.arange(len(views) // 2)
        first = torch.randint(2, source.shape, generator=generator)
        order = torch.stack([source + first * len(source), source + (1 - first) * len(source)], 1).flatten()
        probes["watermark"] = as_uint8(views[order])
        watermark = WatermarkProbes(labels=labels[order], angles=angles[order], sources=source.repeat_interleave(2))
    return {name: images.contiguous() for name, images in probes.items()}, watermark


def _inference_probes(
    private: Tensor, public: Tensor, plan: Plan, view: View | None, generator: torch.Generator
) -> Probes:
    """Return the probe sets of dataset inference."""
    check_images(private, DataError, minimum=2)
    if private.shape[1] != public.shape[1]:
        private, public = three_channels(private), three_channels(public)
    if private.shape[1:] != public.shape[1:]:
        raise DataError(
            f"private images are {tuple(private.shape[-2:])} pixels, public ones {tuple(public.shape[-2:])}",
            "bring both to one size",
        )
    count = min(plan.n_private, len(private), len(public))
    probes = {"private": private[torch.randperm(len(private), generator=generator)[:count]]}
    if view is not None:
        for name, source in (("private_views", probes["private"]), ("outside_views", public[:count])):
            probes[name] = torch.cat([as_uint8(view(as_input(source), generator)) for _ in range(2)])
    return probes


def check_rows(sets: dict[str, NDArray[np.float32]], probes: Probes) -> None:
    """Raise ValueError unless `sets` has one representation for each probe of every set."""
    if set(sets) != set(probes) or any(sets[k].ndim != 2 or len(sets[k]) != len(probes[k]) for k in probes):
        raise ValueError("representations do not fit the probes")
