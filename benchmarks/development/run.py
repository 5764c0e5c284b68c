"""Make the development models and score the candidate statistics on them.

    TURNMARK_DATA=runs/data python -m benchmarks.development run --data cifar10 --work runs/development --jobs 2

The statistics that decide a verdict are chosen here and judged by `benchmarks.verdicts` on other models: disjoint by
seed and by the images that victims and independents learn from. The attacker's queries overlap the images of that
benchmark's public checkpoint, and on Fashion-MNIST the checkpoint here has the same images. Victims share a panel
(fine-tuned victims have fine-tunes of their checkpoint in it, too). A row is one suspect's score by one candidate: the
distance from the decisive stratum in standard deviations, the p-value, and each stratum's mean, spread and size.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from attacks_for_eval.evaluation.parallel import parallel_map
from benchmarks.common.rows import Row
from benchmarks.development.candidates import CANDIDATES, FITTED, PLAN
from benchmarks.development.models import FROM_RANDOM, STRATA, VICTIMS, Group, weights_of
from benchmarks.development.tables import ROWS, by_victim
from benchmarks.verdicts.design import SCALES
from cli.render import progress
from ownership.encoders.images import as_input, as_uint8
from ownership.evidence.responses import NotApplicable, ScoringContext
from ownership.stats import case_control_test
from ownership.suspects.suspect import load_encoder
from ownership.watermark import RotationPredictor, rotated_pairs
from watermark_training.loaded_encoder import load_trained
from watermark_training.watermark import fitted_predictor


def scores(group: Group, victim: int, names: list[str]) -> list[Row]:
    """Return the rows of one victim."""
    owner = load_trained(group.victim_folder(victim))
    assert owner.key is not None
    assert owner.predictor is not None
    images = group.sources["private"].images
    predictors = nn.ModuleDict({"own": owner.predictor})
    checkpoint = weights_of(load_encoder(group.factory.path(group.checkpoint)).encoder)
    for name, (noise, pairs, against) in FITTED.items():
        if not any(c.startswith(f"watermark, {name}") for c in names) or (against and victim in FROM_RANDOM):
            continue
        predictors[name] = fitted_predictor(
            weights_of(owner.encoder),
            owner.key,
            images,
            noise=noise,
            pairs=pairs,
            base_encoder=checkpoint if against else None,
        )
    views, labels, _ = rotated_pairs(
        as_input(group.sources["public"].images), owner.key, torch.Generator().manual_seed(1)
    )
    watermarked = as_uint8(views) if any(c.startswith("watermark") for c in names) else None
    session = {name: (role, group.responses(name, path, watermarked)) for role, name, path in group.models(victim)}
    panel = [(role, a) for role, a in session.values() if role in STRATA]
    names_by_file = {path.name: name for _, name, path in group.models(victim)}
    teachers = {
        f"distilled {r.seed}": names_by_file.get(r.base_checkpoint, "") for r in group.distilled_controls(victim)
    }
    context = ScoringContext(
        plan=PLAN,
        victim=group.responses("victim", group.victim_folder(victim) / "encoder.safetensors", watermarked),
        panel=tuple(a for _, a in panel),
        teachers=teachers,
        watermark_labels=labels.numpy(),
        watermark_sources=np.tile(np.arange(len(labels) // 2), 2),
        predictor=cast(RotationPredictor, predictors),  # the candidates choose one of these by name
    )
    rows = []
    for candidate in names:
        score = CANDIDATES[candidate]
        try:
            of_members = [(role, score(a, context.without(a))) for role, a in panel]
        except NotApplicable:  # a predictor against a checkpoint, but the victim has none
            continue
        for name, (role, a) in session.items():
            if role in STRATA:
                continue
            try:
                value = score(a, context)
            except NotApplicable:  # no watermark statistic where the representation has another dimension
                continue
            strata = [s for s in STRATA if any(role == s for role, _ in panel)]
            tests = [case_control_test(value, [x for role, x in of_members if role == s]) for s in strata]
            hardest = max(tests, key=lambda t: t.pvalue)
            row: Row = {"data": group.scale.data, "victim": victim, "role": role, "suspect": name}
            row["candidate"] = candidate
            spreads = {s: [t.mean, t.sd, t.n] for s, t in zip(strata, tests, strict=True)}
            row |= {"score": value, "effect": hardest.effect_size, "pvalue": hardest.pvalue, "strata": spreads}
            rows.append(row)
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--data", choices=SCALES, default="fashion-mnist")
    parser.add_argument("--work", type=Path, default=Path("runs/development"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="of all trainings, to try the script out; no rows are kept then")
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--victims", nargs="+", type=int, choices=VICTIMS, default=list(VICTIMS))
    parser.add_argument("--made", action="store_true", help="make no more models, score those that exist")


def run(arguments: argparse.Namespace) -> None:
    """Make the models, score them and replace their rows."""
    scale = SCALES[arguments.data]
    if arguments.epochs:
        scale = replace(scale, epochs=arguments.epochs, fine_tune_epochs=1, extraction_epochs=1, usual_queries=500)
    group = Group(scale, arguments.work)
    with progress() as show:
        jobs = [] if arguments.made else list(group.jobs(arguments.victims))
        for i, _ in enumerate(parallel_map(Group.make, group, jobs, folder=arguments.work, jobs=arguments.jobs)):
            show("models", i + 1, len(jobs))
    rows = [row for victim in arguments.victims for row in scores(group, victim, arguments.candidates)]
    for name, text in by_victim(rows).items():
        print(f"### {name}\n\n{text}\n")
    if not arguments.epochs:
        ROWS.replace(rows, lambda r: (r["data"], r["victim"], r["candidate"]))
