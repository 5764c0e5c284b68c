"""Train a gate on the disclosed probes of ten claims, and try it on those of an eleventh.

    TURNMARK_DATA=runs/data python -m benchmarks.probe_gate run                # Fashion-MNIST, three seeds
    ... --data cifar10
    TURNMARK_DATA=runs/data python -m benchmarks.probe_gate run --known        # gates that know the probes

A gate in front of a surrogate would answer probes with another encoder. Each claim has a pool of its own and draws its
probes from it by its key; the users' images are others of the same data set. The gate is an encoder with a linear
layer, trained to tell the two apart. The probes of the rotation watermark, which are rotated, are tried as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import Examples, fit
from attacks_for_eval.extraction.labels import Classifier, LabelObjective
from attacks_for_eval.seeded_key import seeded_key
from benchmarks.common.machine import cpu, versions
from benchmarks.common.rows import Row, RowStore
from benchmarks.probe_gate.known import known_probes
from ownership.encoders.images import as_input, as_uint8, represent
from ownership.watermark import TURN, rotate
from watermark_training.data import load_data
from watermark_training.device import seeded, seeded_architecture

ROWS = RowStore("probe_gate")
CLAIMS, POOL, PROBES = 11, 1_500, 1_000
"""Claims, the last of which is ours; images of each pool, and probes that each key draws."""
SEEDS = (0, 1, 2)
RESAMPLES = 2_000


def claim_probes(images: Tensor, seed: int) -> Iterator[Tensor]:
    """Yield the probes of each claim: what its key draws from its pool."""
    for i, pool in enumerate(torch.split(images[: CLAIMS * POOL], POOL)):
        yield seeded_key(f"probe gate {seed} {i}", pool, probes=PROBES).probes


def rotated(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images rotated by any angle, as the rotation watermark asks for them."""
    return as_uint8(rotate(as_input(images), torch.rand(len(images), generator=generator) * TURN))


def gate(probes: Tensor, ordinary: Tensor, seed: int) -> nn.Module:
    """Return a classifier that was trained to tell probes from ordinary images."""
    generator = torch.Generator().manual_seed(seed)
    encoder = seeded_architecture("tiny", generator)
    with seeded(generator):
        layer = nn.Linear(encoder.dim, 2)
    known = F.one_hot(torch.arange(2).repeat_interleave(torch.tensor([len(ordinary), len(probes)]))).float()
    config = ExtractionConfig(arch="tiny", epochs=4, batch_size=128, lr=2e-3, seed=seed)
    images = torch.cat([ordinary, probes])
    fit(encoder, LabelObjective("labels", layer), config, Examples(images=images, responses=known), generator)
    return Classifier(encoder, layer).eval()


def measured(images: Tensor, seed: int, kind: str) -> Row:
    """Return the gate's area under the ROC curve on the last claim, with a 95 % bootstrap interval over images."""
    generator = torch.Generator().manual_seed(seed)
    images = images[torch.randperm(len(images), generator=generator)]
    probes, others = list(claim_probes(images, seed)), images[CLAIMS * POOL :]
    if kind == "rotated":
        probes = [rotated(p, generator) for p in probes]
    learn = (CLAIMS - 1) * PROBES
    found = gate(torch.cat(probes[:-1]), others[:learn], seed)
    tried, labels = torch.cat([probes[-1], others[learn : learn + PROBES]]), np.repeat([1, 0], PROBES)
    logits = represent(found, tried)
    scores = (logits[:, 1] - logits[:, 0]).numpy()
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        rows = np.concatenate([rng.integers(0, PROBES, PROBES), rng.integers(PROBES, 2 * PROBES, PROBES)])
        drawn.append(roc_auc_score(labels[rows], scores[rows]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"auc": float(roc_auc_score(labels, scores)), "low": float(low), "high": float(high)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.add_argument("--data", choices=("fashion-mnist", "cifar10"), default="fashion-mnist")
    parser.add_argument("--known", action="store_true", help="gates that know the probes, instead of learning them")


def run(arguments: argparse.Namespace) -> None:
    """Measure what has no row."""
    done = {(r["data"], r["kind"], r["seed"]) for r in ROWS.load()}
    if arguments.known:
        for seed in (s for s in SEEDS if (arguments.data, "known", s) not in done):
            rows = list(known_probes(arguments.data, seed))
            for row in rows:
                ROWS.append({"data": arguments.data, "kind": "known", "seed": seed, **row, "cpu": cpu()})
                print(f"{row['suspect']:12} {row['gate']:40} pool p {row['pool_pvalue']:.4f}", flush=True)
        return
    images = load_data(f"{arguments.data}:train").images
    for kind in ("drawn by a key", "rotated"):
        for seed in SEEDS:
            if (arguments.data, kind, seed) not in done:
                row = {"data": arguments.data, "kind": kind, "seed": seed, **measured(images, seed, kind)}
                ROWS.append({**row, "cpu": cpu(), "versions": versions()})
                print(f"{kind:16} seed {seed}  AUC {row['auc']:.3f}", flush=True)
