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

from ownership.answers import Answers
from ownership.encoders.images import EncoderLike, as_input, as_uint8, check_images, represent, three_channels
from ownership.errors import DataError, OwnershipError, SuspectError
from ownership.io.text import printable
from ownership.plan import Plan
from ownership.watermark import TURN, WatermarkKey, rotate, rotated_pairs

View = Callable[[Tensor, torch.Generator], Tensor]
"""Images `(n, c, h, w)` float in `[0, 1]` and a generator -> one random view of each, same shape and range."""

Probes = dict[str, Tensor]
"""Name of a set -> uint8 images `(n, c, h, w)`; the sets are those of `ownership.evidence.Answers`."""


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
    upright = as_input(probes["public"][: plan.n_turned]).repeat(plan.turns, 1, 1, 1)
    probes["turned"] = as_uint8(rotate(upright, torch.rand(len(upright), generator=generator) * TURN))
    marked = None
    if key is not None:
        views, labels, angles = rotated_pairs(as_input(probes["public"][: plan.n_watermark]), key, generator)
        shown = torch.arange(len(views) // 2)
        first = torch.randint(2, shown.shape, generator=generator)
        order = torch.stack([shown + first * len(shown), shown + (1 - first) * len(shown)], 1).flatten()
        probes["watermark"], marked = as_uint8(views[order]), (labels[order], angles[order], shown.repeat_interleave(2))
    return {name: images.contiguous() for name, images in probes.items()}, marked


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


def ask(encoder: EncoderLike, probes: Probes, name: str) -> Answers:
    """Returns an encoder's answers to every probe set.

    Raises:
        SuspectError: if it cannot take the images, or its answers are not `(n, d)` real numbers.
    """
    sets = {}
    for set_name, images in probes.items():
        answers = _represent(encoder, images, name, batch_size=256)
        if answers.ndim != 2 or len(answers) != len(images) or not 1 <= answers.shape[1] <= 65536:
            raise SuspectError(
                f"{printable(name)}: answers {tuple(answers.shape)} to {len(images)} images, expected (n, d)",
                "an encoder gives one vector an image; export the pooled output",
            )
        sets[set_name] = answers.numpy()
    return Answers(name, sets)


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


def asked_again(n: int, plan: Plan, count: int | None = None) -> NDArray[np.intp]:
    """Returns which of n probes are asked twice, in the order of asking: `count` of them, or `repeats(n, plan)`."""
    return np.random.default_rng(plan.seed).permutation(n)[: repeats(n, plan) if count is None else count]


def problems_with(
    answers: Answers, encoder: EncoderLike, probes: Probes, plan: Plan, *, again: int | None = None
) -> list[str]:
    """Returns why these answers cannot be tested (empty if they can): too few, not finite, constant, unstable.

    Some of the probes, drawn at random, are asked again, shuffled and in other batches; a network's answer to an image
    depends on that image alone.

    Args:
        answers: to the probes.
        encoder: asked again.
        probes: those that were asked.
        plan: limits and seed.
        again: how many are asked again; `plan.repeat_share` of them if not given.
    """
    problems = []
    public = answers.sets["public"]
    if len(public) < plan.min_probes:
        problems.append(f"too few probes: the claim has {len(public)} public probes, the plan asks {plan.min_probes}")
    everything = np.concatenate(list(answers.sets.values()))
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
    rows = asked_again(len(images), plan, again)
    repeated = _represent(encoder, images[torch.from_numpy(rows)], answers.name, batch_size=13).numpy()
    difference = float(np.abs(repeated - everything[rows]).max()) / scale
    if not difference <= plan.repeat_tolerance:
        problems.append(
            f"answers differ when asked again, shuffled and in other batches (largest difference {difference:.2g} of "
            "their root mean square): the suspect is random, stateful or depends on the batch"
        )
    return problems
