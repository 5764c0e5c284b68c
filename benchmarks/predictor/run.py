"""Compare rotation predictors: on scaled representations, on raw ones, and never trained.

    python -m benchmarks.predictor run --seeds 0 1 2

Trains a victim on 500 digits with the predictor on representations scaled to length sqrt(d) ("direction"), on the
representations as they are ("raw", the paper), and with a predictor that is never trained ("frozen", the released
code). Extracts it with three losses. Prints the watermark success rate of each on held-out digits, without alignment,
and that of independent encoders: the one farthest from chance (0.5) of two with foreign keys, two with the public
180-degree task and two plain ones. Development data only: no verdict follows from it, and no rows are kept.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from attacks_for_eval.demo import train_config
from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from attacks_for_eval.extraction.losses import REFERENCE_LOSSES
from benchmarks.main_job.run import config_of
from ownership.watermark import RotationPredictor, secret_key
from watermark_training.data import load_data
from watermark_training.training import train
from watermark_training.watermark import watermark_rate


def raw_forward(self: RotationPredictor, representations: Tensor) -> Tensor:
    """Apply the predictor without the scaling."""
    x = representations
    for layer in self.layers[:-1]:
        x = torch.relu(layer(x))
    out: Tensor = self.layers[-1](x)
    return out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])


def run(arguments: argparse.Namespace) -> None:
    """Train, extract and print a Markdown table."""
    scaled_forward = RotationPredictor.forward
    print("| predictor | seed | victim | " + " | ".join(REFERENCE_LOSSES) + " | independents, farthest |")
    print("|---|---|---|" + "---|" * (len(REFERENCE_LOSSES) + 1))
    for seed in arguments.seeds:
        images = load_data("digits").images[torch.randperm(1797, generator=torch.Generator().manual_seed(seed))]
        private, queries, held_out = images[:500], images[500:1200], images[1200:]
        RotationPredictor.forward = scaled_forward  # type: ignore[method-assign]
        job = config_of("digits", seed)
        independents = [
            train(
                private if i == 0 else queries,
                train_config(job, watermark, 100 * seed + 10 + i, job.independent_epochs),
                key=secret_key(torch.Generator().manual_seed(1000 + 10 * seed + i)) if watermark == "secret" else None,
            ).encoder
            for watermark in ("secret", "paper", "none")
            for i in range(2)
        ]
        for name, forward in (("direction", scaled_forward), ("raw", raw_forward), ("frozen", scaled_forward)):
            RotationPredictor.forward = forward  # type: ignore[method-assign]
            key = secret_key(torch.Generator().manual_seed(seed))
            victim = train(
                private,
                replace(
                    train_config(job, "secret", seed, job.epochs),
                    predictor="frozen" if name == "frozen" else "trained",
                ),
                key=key,
            )
            predictor = victim.predictor
            assert predictor is not None
            rate = partial(watermark_rate, predictor=predictor, key=key, images=held_out, seed=seed + 1)
            rates = [rate(victim.encoder)]
            for loss in REFERENCE_LOSSES:
                extraction = ExtractionConfig(
                    loss=loss,
                    arch=job.arch,
                    queries=700,
                    epochs=job.extraction_epochs,
                    batch_size=128,
                    lr=job.lr,
                    seed=seed,
                )
                surrogate = extract(BlackBox(victim.encoder), queries, extraction)
                rates.append(rate(surrogate))
            read = [rate(encoder) for encoder in independents]
            rates.append(max(read, key=lambda r: abs(r - 0.5)))
            print(f"| {name} | {seed} | " + " | ".join(f"{r:.3f}" for r in rates) + " |", flush=True)
