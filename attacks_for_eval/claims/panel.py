"""The panel of a claim: encoders like the victim, trained without it, of the kinds that look guiltiest.

Docs/statistics.md says what each kind is for. Members are trained as the victim was, on as many images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import torch

from ownership.encoders.architectures import CUSTOM
from ownership.errors import TrainingError
from ownership.io.progress import Progress, silent
from watermark_training.config import Mark, TrainConfig
from watermark_training.data import Data
from watermark_training.train_folder import CONFIG, Loaded, train_to, trainable

TAUGHT = "rotated"
"""The way students are taught, a method of `turnmark steal`: the image turned, the answer as to the upright one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelSpec:
    """An encoder trained without the victim: a panel member or an independent suspect."""

    name: str
    watermark: Mark
    trains_on_private: bool  # trained on the victim's own images, else on as many images of the world
    rotate: bool = False  # trained on rotated views
    from_checkpoint: bool = False  # went on from the same encoder as the victim, in as many passes
    teacher: str = ""  # taught to answer, however an image is turned, as this member of the panel does upright

    @property
    def seed_offset(self) -> int:
        """What its seed adds to the victim's."""
        name = self.name
        for word, spelled in _SEEDED_AS.items():
            name = name.replace(word, spelled)
        return crc32(name.encode())

    @property
    def kind(self) -> str:
        """Its stratum."""
        if self.teacher:
            return "distilled"
        if self.from_checkpoint:
            return "sibling"
        return "rotation_invariant" if self.rotate else "plain" if self.watermark == "none" else "watermarked"


_SEEDED_AS = {
    "watermarked": "marked",
    "sibling": "ancestor",
    "rotation_invariant": "invariant",
    "distilled_from": "student_of",
}
"""Seeds are drawn from a member's name as it was spelled when the benchmarks were run, so that their panels stay the same."""


def panel_specs(
    members: int = 5, *, rotation_invariant: bool = True, from_checkpoint: bool = False
) -> tuple[PanelSpec, ...]:
    """Returns a panel: so many members of each stratum, two of each trained on the victim's own images.

    A larger panel holds the smaller one (with kin, fewer students of others). Five are the fewest that `claim build`
    tests against; `turnmark claim power` says how many a claim needs.

    Args:
        members: of a stratum, plain and marked; every third mark is the paper's public one.
        rotation_invariant: whether as many trained on rotated views belong to it, and as many students of other members, for
            the test that finds thieves who train the mark away (docs/adr/0025).
        from_checkpoint: whether fine-tunes of what the victim went on from belong to it, half of them on the victim's images; one
            less, as that encoder itself belongs to their stratum.

    >>> [s.name for s in panel_specs(1)]
    ['plain_0', 'watermarked_0', 'rotation_invariant_0', 'distilled_from_marked_0']
    """
    out = [PanelSpec(name=f"plain_{i}", watermark="none", trains_on_private=i < 2) for i in range(members)]
    watermarks: tuple[Mark, ...] = ("secret", "paper", "secret")
    out += [
        PanelSpec(name=f"watermarked_{i}", watermark=watermarks[i % 3], trains_on_private=i < 2) for i in range(members)
    ]
    if rotation_invariant:
        out += [
            PanelSpec(name=f"rotation_invariant_{i}", watermark="none", trains_on_private=i < 2, rotate=True)
            for i in range(members)
        ]
    if from_checkpoint:
        tasks: tuple[Mark, ...] = ("none", "secret", "none", "paper")
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
                rotate=True,
                teacher=teacher,
            )
            for teacher in teachers
        ]
    return tuple(out)


def stratum(member: dict[str, Any], victim: dict[str, Any]) -> str:
    """Returns the stratum of a panel member by what its `config.json` and the victim's say; of nothing, plain.

    >>> stratum({"base_checkpoint": "ab"}, {"base_checkpoint": "ab"}), stratum({"base_checkpoint": "ab"}, {}), stratum({}, {})
    ('sibling', 'plain', 'plain')
    """
    if member.get("method") == TAUGHT:
        return "distilled"
    if "base_checkpoint" in member and member["base_checkpoint"] == victim.get("base_checkpoint"):
        return "sibling"
    training = member.get("train", {})
    if training.get("watermark", "none") != "none":
        return "watermarked"
    return "rotation_invariant" if training.get("rotate") else "plain"


def members_in(path: Path) -> list[Path]:
    """Returns the train folders in a folder that holds nothing else than such, or the path itself."""
    if not path.is_dir() or (path / CONFIG).exists():
        return [path]
    inside = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    return inside if inside and all((p / CONFIG).is_file() for p in inside) else [path]


def part_of(world: Data, n: int, seed: int) -> Data:
    """Returns n images of the world, drawn by a seed."""
    order = torch.randperm(len(world), generator=torch.Generator().manual_seed(seed))[:n]
    labels = None if world.labels is None else world.labels[order]
    return Data(name=f"{world.name} (part {seed})", images=world.images[order], labels=labels)


def like_the_victim(config: dict[str, Any]) -> TrainConfig:
    """Returns the training of a train folder's encoder, from its `config.json`.

    Raises:
        TrainingError: if it says none, or one that cannot be repeated for independent encoders.
    """
    stored = config.get("train")
    if not isinstance(stored, dict):
        raise TrainingError("nothing is known of how the victim was trained", "give its train folder")
    try:
        training = TrainConfig(**{f.name: stored[f.name] for f in fields(TrainConfig) if f.name in stored})
    except TypeError as e:
        raise TrainingError("the victim's config.json is malformed", "it was written by another program") from e
    if training.method == "embed" or training.arch == CUSTOM:
        raise TrainingError(
            f"panel_specs cannot be trained as this victim was ({training.arch}, method {training.method})",
            "train the panel with turnmark train, from the start",
        )
    return training


def train_panel(
    training: TrainConfig,
    private: Data,
    world: Data,
    out: Path,
    *,
    members: Sequence[PanelSpec],
    epochs: int | None = None,
    base_checkpoint: Loaded | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
    warn: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Trains the members of a panel, each into a train folder; what is finished is not done again.

    Args:
        training: the victim's; mark, rotation and seed are the members' own.
        private: images that the victim was trained on.
        world: other images of the same kind, at least as many.
        out: where the folders are made.
        members: whom to train; nobody's students, whom `attacks_for_eval.claims.distilled` teaches. The seed of each follows
            from its name, so that a panel can grow.
        epochs: passes of those that begin with fresh weights; the victim's if not given.
        base_checkpoint: what the victim went on from; needed for its kin.
        device: where to compute.
        progress: called after every step, counted over all members.
        warn: called with advice where a member does not learn.

    Returns:
        The members' folders.

    Raises:
        TrainingError: if there are too few images, or kin are wanted of nothing that can be trained on.
    """
    start = None if base_checkpoint is None else trainable(base_checkpoint)[0]
    if start is None and any(m.from_checkpoint for m in members):
        raise TrainingError("kin of the victim need what it went on from", "--base-checkpoint MODEL")
    if len(world) < len(private):
        raise TrainingError(
            f"{len(world)} other images are fewer than the victim's {len(private)}", "give as many, of the same kind"
        )
    folders = []
    for i, member in enumerate(members):
        seed = training.seed + 1 + member.seed_offset
        config = replace(training, watermark=member.watermark, rotate=member.rotate, predictor="trained", seed=seed)
        if epochs is not None and not member.from_checkpoint:
            config = replace(config, epochs=epochs)

        def show(_what: str, done: int, total: int, i: int = i, name: str = member.name) -> None:
            progress(f"training {name}", 1000 * i + 1000 * done // max(1, total), 1000 * len(members))

        train_to(
            out / member.name,
            private if member.trains_on_private else part_of(world, len(private), seed),
            config,
            start=start if member.from_checkpoint else None,
            base_checkpoint=base_checkpoint.sha256 if base_checkpoint is not None and member.from_checkpoint else None,
            device=device,
            progress=show,
            warn=lambda line, name=member.name: warn(f"{name}: {line}"),  # type: ignore[misc]
        )
        folders.append(out / member.name)
    return folders
