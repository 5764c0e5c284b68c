"""The reference panel of a claim: encoders like the victim, trained without it, of the kinds that resemble it most.

docs/statistics.md says what each stratum is for. Members are trained as the victim was, on as many images.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any
from zlib import crc32

import torch

from ownership.encoders.architectures import CUSTOM
from ownership.errors import TrainingError
from watermark_training.choices import OWN_LOOP
from watermark_training.config import TrainConfig, WatermarkTask
from watermark_training.data import Data
from watermark_training.loaded_encoder import LoadedEncoder

DISTILLATION_METHOD = "rotated"
"""Extraction method of distilled controls: the response to the unrotated image, for the image at any rotation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelSpec:
    """An encoder trained without the victim: a panel member, or an independent suspect.

    Attributes:
        name: of its folder; its seed follows from the name.
        watermark: rotation task it is trained with.
        trains_on_private: whether it is trained on the victim's own images, or on as many other ones.
        rotation_invariant: whether it is trained on rotated views.
        from_checkpoint: whether it starts from the victim's base checkpoint and trains as long as the victim.
        distilled_from: name of the panel member that it is distilled from; empty if it is not distilled.
    """

    name: str
    watermark: WatermarkTask
    trains_on_private: bool
    rotation_invariant: bool = False
    from_checkpoint: bool = False
    distilled_from: str = ""

    @property
    def seed_offset(self) -> int:
        """What its seed adds to the victim's: a checksum of its name, as the benchmarks spelled it."""
        name = self.name
        for word, spelled in _SEED_SPELLINGS.items():
            name = name.replace(word, spelled)
        return crc32(name.encode())

    @property
    def kind(self) -> str:
        """Its stratum."""
        if self.distilled_from:
            return "distilled"
        if self.from_checkpoint:
            return "sibling"
        return (
            "rotation_invariant" if self.rotation_invariant else "plain" if self.watermark == "none" else "watermarked"
        )


_SEED_SPELLINGS = {
    "watermarked": "marked",
    "sibling": "ancestor",
    "rotation_invariant": "invariant",
    "distilled_from": "student_of",
}
"""Word in a member's name -> its spelling in the seed: the benchmarks' panels, drawn from these, stay the same."""


def panel_specs(
    members: int = 5, *, rotation_invariant: bool = True, from_checkpoint: bool = False
) -> tuple[PanelSpec, ...]:
    """Return a panel with `members` encoders in each stratum, two of each trained on the victim's own images.

    A larger panel contains the smaller one (with siblings, except for some distilled controls). Five are the fewest
    that `claim build` tests against; `turnmark claim power` says how many a claim needs.

    Args:
        members: of each stratum, plain and watermarked; every third watermark is the paper's public one.
        rotation_invariant: adds `members` encoders trained on rotated views and `members` distilled controls, for the
            test that detects surrogates trained to remove the watermark (docs/adr/0025).
        from_checkpoint: adds fine-tunes of the victim's base checkpoint, half of them on the victim's images. They are
            `members` - 1, because the base checkpoint itself belongs to their stratum.

    >>> [s.name for s in panel_specs(1)]
    ['plain_0', 'watermarked_0', 'rotation_invariant_0', 'distilled_from_watermarked_0']
    """
    watermarks: tuple[WatermarkTask, ...] = ("secret", "paper", "secret")
    tasks: tuple[WatermarkTask, ...] = ("none", "secret", "none", "paper")
    out = [PanelSpec(name=f"plain_{i}", watermark="none", trains_on_private=i < 2) for i in range(members)]
    out += [
        PanelSpec(name=f"watermarked_{i}", watermark=watermarks[i % 3], trains_on_private=i < 2) for i in range(members)
    ]
    if rotation_invariant:
        out += [
            PanelSpec(
                name=f"rotation_invariant_{i}", watermark="none", trains_on_private=i < 2, rotation_invariant=True
            )
            for i in range(members)
        ]
    if from_checkpoint:
        out += [
            PanelSpec(
                name=f"sibling_{i}", watermark=tasks[i // 2 % 4], trains_on_private=i % 2 == 0, from_checkpoint=True
            )
            for i in range(members - 1)
        ]
    if rotation_invariant:
        kinds = ("watermarked", "plain", "sibling") if from_checkpoint else ("watermarked", "plain")
        teachers = [f"{kinds[i % len(kinds)]}_{i // len(kinds)}" for i in range(members)]
        out += [
            PanelSpec(
                name=f"distilled_from_{teacher}",
                watermark="none",
                trains_on_private=False,
                rotation_invariant=True,
                distilled_from=teacher,
            )
            for teacher in teachers
        ]
    return tuple(out)


def stratum_of(member: dict[str, Any], victim: dict[str, Any]) -> str:
    """Return the stratum of a panel member from its `config.json` and the victim's; plain for empty ones.

    >>> victim = {"base_checkpoint": "ab"}
    >>> stratum_of({"base_checkpoint": "ab"}, victim), stratum_of({"base_checkpoint": "ab"}, {}), stratum_of({}, {})
    ('sibling', 'plain', 'plain')
    """
    if member.get("method") == DISTILLATION_METHOD:
        return "distilled"
    if "base_checkpoint" in member and member["base_checkpoint"] == victim.get("base_checkpoint"):
        return "sibling"
    training = member.get("train", {})
    if training.get("watermark", "none") != "none":
        return "watermarked"
    return "rotation_invariant" if training.get("rotate") else "plain"


def draw_images(data: Data, n: int, seed: int) -> Data:
    """Return n of the images, drawn by a seed."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:n]
    labels = None if data.labels is None else data.labels[order]
    return Data(name=f"{data.name} (part {seed})", images=data.images[order], labels=labels)


def victim_training(config: dict[str, Any]) -> TrainConfig:
    """Return the training configuration in a victim's `config.json`.

    Raises:
        TrainingError: if it has none, or one that cannot be repeated for independent encoders.
    """
    stored = config.get("train")
    if not isinstance(stored, dict):
        raise TrainingError("it is not known how the victim was trained", "give its train folder")
    if stored.get("method") == OWN_LOOP:
        raise TrainingError(
            "the victim was trained in a loop of its owner's own",
            "train the panel members there, without the watermark",
        )
    try:
        training = TrainConfig(**{f.name: stored[f.name] for f in fields(TrainConfig) if f.name in stored})
    except TypeError as e:
        raise TrainingError("the victim's config.json is malformed", "it was written by another program") from e
    if training.method == "embed" or training.arch == CUSTOM:
        raise TrainingError(
            f"a panel cannot be trained as this victim was ({training.arch}, method {training.method})",
            "train the panel members with turnmark train, from initial weights",
        )
    return training


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class PanelTraining:
    """How the members of a panel are trained.

    Attributes:
        config: the victim's; watermark, rotation and seed are each member's own.
        private: images that the victim was trained on.
        others: other images of the same kind, at least as many.
        epochs: epochs of members that start from initial weights; the victim's if not given.
        base_checkpoint: the victim's; required for siblings.
        device: where to compute.

    Raises:
        TrainingError: if there are fewer other images than private ones.
    """

    config: TrainConfig
    private: Data
    others: Data
    epochs: int | None = None
    base_checkpoint: LoadedEncoder | None = None
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if len(self.others) < len(self.private):
            raise TrainingError(
                f"{len(self.others)} other images are fewer than the victim's {len(self.private)}",
                "give as many, of the same kind",
            )

    @property
    def epochs_from_scratch(self) -> int:
        """Epochs of members that start from initial weights."""
        return self.config.epochs if self.epochs is None else self.epochs
