"""Development models of the verdict benchmark, and candidates for evidence beside each other on them.

    TURNMARK_DATA=runs/data python benchmarks/verdicts/development.py --data cifar10 --work runs/development --jobs 2
    python benchmarks/verdicts/development.py --print        # the committed rows as tables

What decides is chosen here and judged by `run.py`, on other models: disjoint by seed and by the images that victims and
independents learn from. The thief's queries overlap the images of the judge's public checkpoint, and on Fashion-MNIST
the checkpoint here has the same ones (`development_models.py`, `design.py`). Victims share a panel (some grew
from a public checkpoint, whose fine-tunes are in their panel only). A row is one suspect's score by one candidate, its
distance from the hardest stratum in standard deviations, the p-value, and each stratum's mean, spread and size.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from candidates import CANDIDATES, FITTED, PLAN
from design import SCALES
from development_models import FROM_START, STRATA, VICTIMS, Group, weights_of

from attacks_for_eval.evaluation.parallel import spread
from cli.render import progress
from ownership.encoders.images import as_input, as_uint8
from ownership.evidence.responses import NotApplicable, ScoringContext
from ownership.stats import case_control_test
from ownership.suspects.suspect import load_encoder
from ownership.watermark import rotated_pairs
from watermark_training.train_folder import load_trained
from watermark_training.watermark import fitted_predictor

RESULTS = Path(__file__).parents[1] / "results" / "development.jsonl"


def read(group: Group, victim: int, names: list[str]) -> list[dict[str, Any]]:
    """Returns the rows of one victim."""
    owner = load_trained(group.victim_folder(victim))
    assert owner.key is not None
    assert owner.predictor is not None
    images = group.sources["private"].images
    predictors = nn.ModuleDict({"own": owner.predictor})
    checkpoint = weights_of(load_encoder(group.shop.path(group.checkpoint)).encoder)
    for name, (noise, pairs, against) in FITTED.items():
        if not any(c.startswith(f"mark, {name}") for c in names) or (against and victim in FROM_START):
            continue
        predictors[name] = fitted_predictor(
            weights_of(owner.encoder),
            owner.key,
            images,
            noise=noise,
            pairs=pairs,
            against=checkpoint if against else None,
        )
    views, labels, _ = rotated_pairs(
        as_input(group.sources["public"].images), owner.key, torch.Generator().manual_seed(1)
    )
    watermarked = as_uint8(views) if any(c.startswith("watermark") for c in names) else None
    session = {name: (role, group.responses(name, path, watermarked)) for role, name, path in group.models(victim)}
    panel = [(role, a) for role, a in session.values() if role in STRATA]
    names_by_file = {path.name: name for _, name, path in group.models(victim)}
    taught = {f"student {r.seed}": r.base_checkpoint for r in group.students(victim)}
    teachers = {student: names_by_file.get(teacher, "") for student, teacher in taught.items()}
    context = ScoringContext(
        plan=PLAN,
        victim=group.responses("victim", group.victim_folder(victim) / "encoder.safetensors", watermarked),
        panel=tuple(a for _, a in panel),
        teachers=teachers,
        watermark_labels=labels.numpy(),
        watermark_images=np.tile(np.arange(len(labels) // 2), 2),
        predictor=predictors,
    )
    rows = []
    for candidate in names:
        score = CANDIDATES[candidate]
        try:
            of_members = [(role, score(a, context.without(a))) for role, a in panel]
        except NotApplicable:  # a predictor against a checkpoint, of a victim that has none
            continue
        for name, (role, a) in session.items():
            if role in STRATA:
                continue
            try:
                value = score(a, context)
            except NotApplicable:  # the mark is not read where a representation has another length
                continue
            strata = [s for s in STRATA if any(role == s for role, _ in panel)]
            tests = [case_control_test(value, [x for role, x in of_members if role == s]) for s in strata]
            hardest = max(tests, key=lambda t: t.pvalue)
            row = {"data": group.scale.data, "victim": victim, "role": role, "suspect": name, "candidate": candidate}
            spreads = {s: [t.mean, t.sd, t.n] for s, t in zip(strata, tests, strict=True)}
            row |= {"score": value, "effect": hardest.effect_size, "pvalue": hardest.pvalue, "strata": spreads}
            rows.append(row)
    return rows


def stored() -> list[dict[str, Any]]:
    """Returns the committed rows."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def print_tables(rows: list[dict[str, Any]]) -> None:
    """Prints distance from the hardest stratum in standard deviations, a table a victim; * where p < .0017."""
    for data, victim in dict.fromkeys((r["data"], r["victim"]) for r in rows):
        mine = [r for r in rows if (r["data"], r["victim"]) == (data, victim)]
        names = list(dict.fromkeys(r["candidate"] for r in mine))
        print(f"\n{data}, victim {victim}\n\n| suspect | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
        for suspect in dict.fromkeys(r["suspect"] for r in mine):
            found = {r["candidate"]: r for r in mine if r["suspect"] == suspect}
            cells = [
                f"{r['effect']:.1f}{'*' if r['pvalue'] < 0.0017 else ''}" if (r := found.get(n)) else "" for n in names
            ]
            print(f"| {suspect} | {' | '.join(cells)} |")


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=SCALES, default="fashion-mnist")
    parser.add_argument("--work", type=Path, default=Path("runs/development"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--passes", type=int, help="over the images, to try the script out; no rows are kept then")
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES))
    parser.add_argument("--victims", nargs="+", type=int, choices=VICTIMS, default=list(VICTIMS))
    parser.add_argument("--made", action="store_true", help="make no more models, read those that are there")
    parser.add_argument("--print", action="store_true", dest="show")
    arguments = parser.parse_args()
    if arguments.show:
        print_tables(stored())
        return
    scale = SCALES[arguments.data]
    if arguments.passes:
        scale = replace(scale, epochs=arguments.passes, fine_tune_epochs=1, passes=1, usual=500)
    group = Group(scale, arguments.work)
    with progress() as show:
        jobs = [] if arguments.made else list(group.jobs(arguments.victims))
        for i, _ in enumerate(spread(Group.make, group, jobs, folder=arguments.work, jobs=arguments.jobs)):
            show("models", i + 1, len(jobs))
    rows = [row for victim in arguments.victims for row in read(group, victim, arguments.candidates)]
    print_tables(rows)
    if not arguments.passes:
        again = {(r["data"], r["victim"], r["candidate"]) for r in rows}
        kept = [r for r in stored() if (r["data"], r["victim"], r["candidate"]) not in again]
        RESULTS.write_text("".join(json.dumps(r, sort_keys=True) + "\n" for r in [*kept, *rows]))


if __name__ == "__main__":
    main()
