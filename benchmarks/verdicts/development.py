"""Development models of the verdict benchmark, and candidates for evidence beside each other on them.

    TURNMARK_DATA=runs/data python benchmarks/verdicts/development.py --data cifar10 --work runs/development --jobs 2
    python benchmarks/verdicts/development.py --print        # the committed rows as tables

What decides is chosen here and judged by `run.py`, on other models: disjoint by seed and by the images that victims and
independents learn from. The thief's queries overlap the images of the judge's public checkpoint, and on Fashion-MNIST
the checkpoint here has the same ones (`PARTS`, `design.py`). Two victims share a panel (the second one grew from a
public checkpoint, whose fine-tunes are in its panel only). A row is one suspect's score by one candidate, its distance
from the hardest stratum in standard deviations, and the p-value.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from design import SCALES, Scale, independent, theft

from attacks_for_eval.recipes import Recipe, Settings, Workshop
from cli.render import progress
from ownership.answers import Answers, Context
from ownership.architectures import Encoder
from ownership.images import as_input, as_uint8, represent
from ownership.plan import Plan
from ownership.scores import beyond_others, partial_rsa, partial_rsa_relative, partial_rsa_turned
from ownership.similarity import Array, whiten
from ownership.stats import case_control_test, fisher_z
from ownership.suspect import load_encoder
from ownership.watermark import TURN, rotate, secret_key
from watermark_training.artefacts import load_trained, train_to
from watermark_training.data import Data, load_data

RESULTS = Path(__file__).parents[1] / "results" / "development.jsonl"
PARTS = {  # name -> split, first image, end
    "fashion-mnist": {
        "private": ("train", 0, 4_000),
        "checkpoint": ("train", 4_000, 10_000),
        "panel": ("train", 10_000, 14_000),
        "queries": ("train", 4_000, 14_000),
        "public": ("test", 0, 1_000),
    },
    "cifar10": {
        "private": ("train", 46_000, 50_000),
        "checkpoint": ("test", 5_000, 10_000),
        "panel": ("train", 0, 4_000),
        "queries": ("train", 4_000, 10_000),
        "public": ("test", 0, 1_000),
    },
}
SETTINGS = Settings()
PLAN = Plan(n_public=1000, n_turned=1000, turns=8)
STRATA = ("plain", "marked", "invariant", "ancestor")


def weights_of(path: Path) -> Encoder:
    """Returns one of our own encoders."""
    encoder = load_encoder(path).encoder
    assert isinstance(encoder, Encoder)
    return encoder


class Group:
    """The models of one data set: who they are, how they are made, what they answer."""

    def __init__(self, scale: Scale, work: Path) -> None:
        self.scale, self.work = scale, work / scale.data
        whole = {split: load_data(f"{scale.data}:{split}") for split in ("train", "test")}
        self.sources: dict[str, Data] = {}
        for name, (split, a, b) in PARTS[scale.data].items():
            images, labels = whole[split].images[a:b], whole[split].labels
            self.sources[name] = Data(
                name=f"{scale.data}:{split}[{a}:{b}]", images=images, labels=None if labels is None else labels[a:b]
            )
        self.shop = Workshop(folder=self.work / "models", sources=self.sources, settings=SETTINGS)
        size = len(self.sources["checkpoint"])
        self.checkpoint = independent(scale, "checkpoint", 950, source="checkpoint", images=size)

    def thief(self, victim: int) -> Workshop:
        """Where what is stolen from a victim (0: from the start; 1: grown) is made; trains the victim if need be."""
        folder = self.work / f"victim_{victim}"
        start: Encoder | None = None
        epochs = self.scale.epochs
        if victim:
            start, epochs = weights_of(self.shop.make(self.checkpoint)), self.scale.fine_tune_epochs
        recipe = independent(self.scale, "victim", 190 + victim, mark="secret")
        key = secret_key(torch.Generator().manual_seed(190 + victim))
        train_to(folder, self.sources["private"], SETTINGS.training(recipe, epochs=epochs), key=key, start=start)
        loaded = load_trained(folder)
        assert isinstance(loaded.encoder, Encoder)
        return replace(self.shop, victim=(loaded.encoder, loaded.sha256))

    def members(self) -> Iterator[tuple[str, Recipe]]:
        """Yields the stratum and recipe of each panel member; those of "ancestor" are victim 1's only."""
        for i in range(7):
            yield "plain", independent(self.scale, "panel", 8000 + i, source="private" if i < 3 else "panel")
        for i in range(7):
            fields = {"source": "private" if i < 3 else "panel", "mark": "paper" if i in (0, 3) else "secret"}
            yield "marked", independent(self.scale, "panel", 8020 + i, **fields)
        for i in range(8):
            source = "private" if i < 3 else "panel"
            yield "invariant", independent(self.scale, "panel", 8060 + i, source=source, objective="rotated")
        yield "ancestor", self.checkpoint
        for i in range(9):
            source = "private" if i % 6 < 3 else "panel"
            yield "ancestor", self.kin(8040 + i, source, ("none", "secret", "paper")[i % 3])

    def kin(self, seed: int, source: str, mark: str) -> Recipe:
        """Returns the recipe of a fine-tune of the public checkpoint."""
        name, epochs = self.shop.path(self.checkpoint).name, self.scale.fine_tune_epochs
        return independent(self.scale, "kin", seed, source=source, mark=mark, ancestor=name, epochs=epochs)

    def innocents(self) -> Iterator[Recipe]:
        """Yields independents that are in no panel; those with an ancestor are for victim 1 only."""
        for i, objective in enumerate(("simclr", "rotated", "simclr", "rotated", "barlow", "supervised", "rotated")):
            source = "private" if i % 3 else "panel"
            yield independent(self.scale, objective, 8100 + i, source=source, objective=objective)
        for i in range(2):
            yield independent(self.scale, "foreign key", 8120 + i, source=("private", "panel")[i], mark="secret")
        for i, arch in enumerate(("small_wide", "small_vgg")):
            yield independent(self.scale, arch, 8130 + i, source=("private", "panel")[i], arch=arch)
        yield independent(self.scale, "queries", 8150, source="queries", images=5000)
        # of victim 1's public checkpoint: fine-tunes, on rotated views too, and students of its answers
        for i in range(5):
            recipe = self.kin(8140 + i, ("private", "panel")[i % 2], ("none", "secret", "secret", "none", "none")[i])
            yield recipe if i < 3 else replace(recipe, kind="kin, rotated", objective="rotated")
        fields = {"objective": "taught", "ancestor": self.shop.path(self.checkpoint).name, "source": "queries"}
        for i, loss in enumerate(("mse", "infonce")):
            for method in ("direct", "turned"):
                taught = {"loss": loss, "method": method, "images": self.scale.usual, "epochs": self.scale.passes}
                yield independent(self.scale, f"student, {loss}, {method}", 8160 + i, **fields, **taught)

    def thefts(self, victim: int) -> Iterator[Recipe]:
        """Yields the hard cases, and one easy one."""
        fields: dict[str, dict[str, Any]] = {
            "infonce": {"loss": "infonce"},
            "wasserstein": {"loss": "wasserstein"},
            "supcon": {"loss": "supcon"},
            "symmetrized": {"loss": "symmetrized"},
            "softnn, VGG-like": {"loss": "softnn", "arch": "small_vgg"},
            "infonce, transformer": {"loss": "infonce", "arch": "small_vit"},
            "mse, half pruned": {"loss": "mse", "laundering": ("prune:50",)},
            "infonce, 70 % pruned": {"loss": "infonce", "laundering": ("prune:70",)},
            "mse, distilled": {"loss": "mse", "laundering": ("distil:infonce:small_vgg",)},
        }
        for loss in ("mse", "infonce"):
            for longer in (1, 2):
                fields[f"{loss}, turned, {longer}"] = {"loss": loss, "method": "turned", "longer": longer}
        for i, (kind, changes) in enumerate(fields.items()):
            yield theft(self.scale, victim, kind, 1000 + i, **changes)

    def models(self, victim: int) -> Iterator[tuple[str, str, Path]]:
        """Yields role or stratum, name and file of everybody that a victim is read against, those made so far."""
        thief = self.thief(victim)
        made = [(stratum, f"{stratum} {i}", r, self.shop) for i, (stratum, r) in enumerate(self.members())]
        made += [("innocent", f"{r.kind} {r.seed}", r, self.shop) for r in self.innocents()]
        made += [("theft", r.kind, r, thief) for r in self.thefts(victim)]
        for role, name, recipe, shop in made:
            path = shop.path(recipe)
            if path.is_file() and (victim or not (recipe.ancestor or role == "ancestor")):
                yield role, name, path

    def answers(self, name: str, encoder: Encoder) -> Answers:
        """Asks an encoder for its answers to the public images, upright and turned."""
        public = self.sources["public"].images
        angles = torch.rand(PLAN.turns * PLAN.n_turned, generator=torch.Generator().manual_seed(0)) * TURN
        turned = as_uint8(rotate(as_input(public[: PLAN.n_turned]).repeat(PLAN.turns, 1, 1, 1), angles))
        return Answers(name, {k: represent(encoder, x).numpy() for k, x in (("public", public), ("turned", turned))})

    def jobs(self) -> Iterator[Any]:
        """Yields what is to be made, once the victims are there."""
        everybody = [*(r for _, r in self.members()), *self.innocents()]
        yield from (joblib.delayed(self.shop.make)(r) for r in everybody if not self.shop.path(r).is_file())
        for victim in (0, 1):
            thief = self.thief(victim)
            yield from (joblib.delayed(thief.make)(r) for r in self.thefts(victim) if not thief.path(r).is_file())


# ---- candidates ----------------------------------------------------------------------------------------------------


def turned(probes: int, turns: int) -> Callable[[Answers, Context], float]:
    """Returns the turned reading with so many probes, shown turned so many times."""
    plan = replace(PLAN, n_turned=probes, turns=turns)

    @cache
    def fewer(a: Answers) -> Answers:
        shown = a.sets["turned"].reshape(PLAN.turns, PLAN.n_turned, -1)[:turns, :probes]
        return Answers(a.name, {"public": a.sets["public"], "turned": shown.reshape(turns * probes, -1)})

    def score(suspect: Answers, context: Context) -> float:
        others = tuple(map(fewer, context.panel))
        return fisher_z(
            partial_rsa_turned(fewer(suspect), replace(context, plan=plan, victim=fewer(context.victim), panel=others))
        )

    return score


@cache
def _directions(a: Answers, turned: bool, k: int) -> Array:
    """Whitened leading directions of the answers (mean over turns) `(n, k)`, of mean square 1."""
    x = a.get("turned").reshape(PLAN.turns, -1, a.dim).mean(0) if turned else a.get("public")
    w = whiten(x, k, PLAN.rsa_shrinkage)
    scaled: Array = w / np.sqrt(np.mean(np.square(w)))
    return scaled


def _hat(kernel: Array, penalty: float, folds: int = 5) -> Array:
    """The matrix that takes targets to their ridge predictions from the other folds, `(n, n)`.

    In the dual form, unlike `ridge_map`: a panel together has more directions than there are images.
    """
    n, out = len(kernel), np.zeros_like(kernel)
    fold = np.random.default_rng(0).permutation(n) % folds
    for f in range(folds):
        here, there = np.flatnonzero(fold == f), np.flatnonzero(fold != f)
        inner = kernel[np.ix_(there, there)]
        inner = inner + penalty * np.trace(inner) / len(there) * np.eye(len(there))
        out[np.ix_(here, there)] = np.linalg.solve(inner, kernel[np.ix_(there, here)]).T
    return out


@cache
def _own_hat(a: Answers, turned: bool, penalty: float) -> Array:
    w = _directions(a, turned, 64)
    return _hat(w @ w.T, penalty)


@cache
def _peculiar(target: Answers, given: tuple[Answers, ...], penalty: float) -> Array:
    """What of an encoder's leading directions the others together do not predict."""
    directions = _directions(target, False, 32)
    kernel = sum(_directions(a, False, 64) @ _directions(a, False, 64).T for a in given)
    out: Array = directions - _hat(np.asarray(kernel), penalty) @ directions
    return out


def predicted(*, turned: bool = False, relative: bool = False, penalty: float = 0.1) -> Callable[..., float]:
    """Returns: how well a suspect's answers predict, by ridge on other images, what is peculiar to the victim."""

    def skill(suspect: Answers, target: Answers, given: tuple[Answers, ...]) -> float:
        rest = _peculiar(target, given, penalty)
        shown = _own_hat(suspect, turned, penalty) @ rest
        return float(np.sum(rest * shown) / (np.linalg.norm(rest) * np.linalg.norm(shown)))

    def score(suspect: Answers, context: Context) -> float:
        value = fisher_z(skill(suspect, context.victim, context.panel))
        if not relative:
            return value
        rest = {m: context.without(m).panel for m in context.panel}
        return beyond_others(value, [fisher_z(skill(suspect, m, others)) for m, others in rest.items()])

    return score


CANDIDATES: dict[str, Callable[[Answers, Context], float]] = {
    "partial RSA": lambda a, c: fisher_z(partial_rsa(a, c)),
    "relative": partial_rsa_relative,
    "turned 300x4": turned(300, 4),
    "turned 300x8": turned(300, 8),
    "turned 1000x4": turned(1000, 4),
    "turned 1000x8": turned(1000, 8),
    "predicted": predicted(),
    "predicted, relative": predicted(relative=True),
    "predicted from turned": predicted(turned=True),
}


def read(group: Group, victim: int, names: list[str]) -> list[dict[str, Any]]:
    """Returns the rows of one victim."""
    owner = group.thief(victim).victim
    assert owner is not None
    asked: dict[str, tuple[str, Answers]] = {}
    for role, name, path in group.models(victim):
        asked[name] = (role, group.answers(name, weights_of(path)))
    panel = [(role, a) for role, a in asked.values() if role in STRATA]
    context = Context(plan=PLAN, victim=group.answers("victim", owner[0]), panel=tuple(a for _, a in panel))
    rows = []
    for candidate in names:
        score = CANDIDATES[candidate]
        of_members = [(role, score(a, context.without(a))) for role, a in panel]
        for name, (role, a) in asked.items():
            if role in STRATA:
                continue
            value, strata = score(a, context), [s for s in STRATA if any(role == s for role, _ in panel)]
            tests = [case_control_test(value, [x for role, x in of_members if role == s]) for s in strata]
            hardest = max(tests, key=lambda t: t.pvalue)
            row = {"data": group.scale.data, "victim": victim, "role": role, "suspect": name, "candidate": candidate}
            rows.append(row | {"score": value, "effect": hardest.effect_size, "pvalue": hardest.pvalue})
    return rows


def print_tables(rows: list[dict[str, Any]]) -> None:
    """Prints distance from the hardest stratum in standard deviations, a table a victim; * where p < .0017."""
    for data, victim in dict.fromkeys((r["data"], r["victim"]) for r in rows):
        mine = [r for r in rows if (r["data"], r["victim"]) == (data, victim)]
        names = list(dict.fromkeys(r["candidate"] for r in mine))
        print(f"\n{data}, victim {victim}\n\n| suspect | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
        for suspect in dict.fromkeys(r["suspect"] for r in mine):
            found = {r["candidate"]: r for r in mine if r["suspect"] == suspect}
            cells = [f"{r['effect']:.1f}{'*' if r['pvalue'] < 0.0017 else ''}" for r in map(found.__getitem__, names)]
            print(f"| {suspect} | {' | '.join(cells)} |")


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=SCALES, default="fashion-mnist")
    parser.add_argument("--work", type=Path, default=Path("runs/development"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--passes", type=int, help="over the images, to try the script out; no rows are kept then")
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--print", action="store_true", dest="show")
    arguments = parser.parse_args()
    stored = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []
    if arguments.show:
        print_tables(stored)
        return
    scale = SCALES[arguments.data]
    if arguments.passes:
        scale = replace(scale, epochs=arguments.passes, fine_tune_epochs=1, passes=1, usual=500)
    group = Group(scale, arguments.work)
    with progress() as show:
        jobs = list(group.jobs())
        for i, _ in enumerate(joblib.Parallel(n_jobs=arguments.jobs, return_as="generator_unordered")(jobs)):
            show("models", i + 1, len(jobs))
    rows = [row for victim in (0, 1) for row in read(group, victim, arguments.candidates)]
    print_tables(rows)
    if not arguments.passes:
        again = {(r["data"], r["candidate"]) for r in rows}
        kept = [r for r in stored if (r["data"], r["candidate"]) not in again]
        RESULTS.write_text("".join(json.dumps(r, sort_keys=True) + "\n" for r in [*kept, *rows]))


if __name__ == "__main__":
    main()
