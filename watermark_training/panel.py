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
from watermark_training.artefacts import CONFIG, Loaded, train_to, trainable
from watermark_training.config import Mark, TrainConfig
from watermark_training.data import Data

TAUGHT = "turned"
"""The way students are taught, a method of `turnmark steal`: the image turned, the answer as to the upright one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """An encoder trained without the victim: a panel member or an independent suspect."""

    name: str
    mark: Mark
    on_private: bool  # trained on the victim's own images, else on as many images of the world
    rotate: bool = False  # trained on rotated views
    kin: bool = False  # went on from the same encoder as the victim, in as many passes
    teacher: str = ""  # taught to answer, however an image is turned, as this member of the panel does upright

    @property
    def kind(self) -> str:
        """Its stratum."""
        if self.teacher:
            return "student"
        if self.kin:
            return "ancestor"
        return "invariant" if self.rotate else "plain" if self.mark == "none" else "marked"


def strangers(members: int = 5, *, invariant: bool = True, kin: bool = False) -> tuple[Stranger, ...]:
    """Returns a panel: so many members of each stratum, two of each trained on the victim's own images.

    A larger panel holds the smaller one (with kin, fewer students of others). Five are the fewest that `claim build`
    tests against; `turnmark claim power` says how many a claim needs.

    Args:
        members: of a stratum, plain and marked; every third mark is the paper's public one.
        invariant: whether as many trained on rotated views belong to it, and as many students of other members, for
            the test that finds thieves who train the mark away (docs/adr/0025).
        kin: whether fine-tunes of what the victim went on from belong to it, half of them on the victim's images; one
            less, as that encoder itself belongs to their stratum.

    >>> [s.name for s in strangers(1)]
    ['plain_0', 'marked_0', 'invariant_0', 'student_of_marked_0']
    """
    out = [Stranger(name=f"plain_{i}", mark="none", on_private=i < 2) for i in range(members)]
    marks: tuple[Mark, ...] = ("secret", "paper", "secret")
    out += [Stranger(name=f"marked_{i}", mark=marks[i % 3], on_private=i < 2) for i in range(members)]
    if invariant:
        out += [Stranger(name=f"invariant_{i}", mark="none", on_private=i < 2, rotate=True) for i in range(members)]
    if kin:
        tasks: tuple[Mark, ...] = ("none", "secret", "none", "paper")
        out += [
            Stranger(name=f"ancestor_{i}", mark=tasks[i // 2 % 4], on_private=i % 2 == 0, kin=True)
            for i in range(members - 1)
        ]
    if invariant:
        kinds = ("marked", "plain", "ancestor") if kin else ("marked", "plain")
        teachers = [f"{kinds[i % len(kinds)]}_{i // len(kinds)}" for i in range(members)]
        out += [
            Stranger(name=f"student_of_{teacher}", mark="none", on_private=False, rotate=True, teacher=teacher)
            for teacher in teachers
        ]
    return tuple(out)


def stratum(member: dict[str, Any], victim: dict[str, Any]) -> str:
    """Returns the stratum of a panel member by what its `config.json` and the victim's say; of nothing, plain.

    >>> stratum({"ancestor": "ab"}, {"ancestor": "ab"}), stratum({"ancestor": "ab"}, {}), stratum({}, {})
    ('ancestor', 'plain', 'plain')
    """
    if member.get("method") == TAUGHT:
        return "student"
    if "ancestor" in member and member["ancestor"] == victim.get("ancestor"):
        return "ancestor"
    training = member.get("train", {})
    if training.get("mark", "none") != "none":
        return "marked"
    return "invariant" if training.get("rotate") else "plain"


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
        TrainingError: if it says none, or one that cannot be repeated for strangers.
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
            f"strangers cannot be trained as this victim was ({training.arch}, method {training.method})",
            "train the panel with turnmark train, from the start",
        )
    return training


def train_panel(
    training: TrainConfig,
    private: Data,
    world: Data,
    out: Path,
    *,
    members: Sequence[Stranger],
    epochs: int | None = None,
    ancestor: Loaded | None = None,
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
        members: whom to train; nobody's students, whom `attacks_for_eval.students` teaches. The seed of each follows
            from its name, so that a panel can grow.
        epochs: passes of those that begin with fresh weights; the victim's if not given.
        ancestor: what the victim went on from; needed for its kin.
        device: where to compute.
        progress: called after every step, counted over all members.
        warn: called with advice where a member does not learn.

    Returns:
        The members' folders.

    Raises:
        TrainingError: if there are too few images, or kin are wanted of nothing that can be trained on.
    """
    start = None if ancestor is None else trainable(ancestor)[0]
    if start is None and any(m.kin for m in members):
        raise TrainingError("kin of the victim need what it went on from", "--ancestor MODEL")
    if len(world) < len(private):
        raise TrainingError(
            f"{len(world)} other images are fewer than the victim's {len(private)}", "give as many, of the same kind"
        )
    folders = []
    for i, member in enumerate(members):
        seed = training.seed + 1 + crc32(member.name.encode())
        config = replace(training, mark=member.mark, rotate=member.rotate, predictor="trained", seed=seed)
        if epochs is not None and not member.kin:
            config = replace(config, epochs=epochs)

        def show(_what: str, done: int, total: int, i: int = i, name: str = member.name) -> None:
            progress(f"training {name}", 1000 * i + 1000 * done // max(1, total), 1000 * len(members))

        train_to(
            out / member.name,
            private if member.on_private else part_of(world, len(private), seed),
            config,
            start=start if member.kin else None,
            ancestor=ancestor.sha256 if ancestor is not None and member.kin else None,
            device=device,
            progress=show,
            warn=lambda line, name=member.name: warn(f"{name}: {line}"),  # type: ignore[misc]
        )
        folders.append(out / member.name)
    return folders
