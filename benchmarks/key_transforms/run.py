"""Put transforms in front of a surrogate of a keyed victim and make the key test.

    python -m benchmarks.key_transforms run --seeds 0 1 2

Digits, architecture `tiny`, 600 probes, 99,999 decoys. A seed has its own key, split, victim, surrogate (MSE, 597
queries) and encoder of the attacker. No setting was chosen by these rows. Linear evaluation: logistic regression on
standardized representations of the attacker's images, tested on the probes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from attacks_for_eval.extraction.black_box import BlackBox
from attacks_for_eval.extraction.config import ExtractionConfig
from attacks_for_eval.extraction.extract import extract
from attacks_for_eval.seeded_key import seeded_key
from benchmarks.common.machine import versions
from benchmarks.common.rows import Row, RowStore
from benchmarks.key_transforms.transforms import Known, transforms
from ownership.encoders.images import EncoderLike, represent
from ownership.keyed.drawn import check_encoder
from watermark_training.config import TrainConfig
from watermark_training.data import load_data
from watermark_training.training import train

ROWS = RowStore("key_transforms")
PRIVATE, ATTACKER = 600, 1197
"""Where the private images end, and the attacker's."""
CONFIG = TrainConfig(
    arch="tiny", epochs=50, batch_size=64, lr=2e-3, temperature=0.2, min_crop=0.3, flip=False, keyed_weight=1.0,
    keyed_fraction=0.5,
)  # fmt: skip
EXTRACTION = ExtractionConfig(loss="mse", arch="tiny", queries=ATTACKER - PRIVATE, epochs=100, batch_size=64, lr=2e-3)
DECOYS = 99_999


def measure(seed: int) -> list[Row]:
    """Return the rows of one seed."""
    data = load_data("digits")
    assert data.labels is not None
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    images, labels = data.images[order], data.labels[order].numpy()
    private, attacker, pool = images[:PRIVATE], images[PRIVATE:ATTACKER], images[ATTACKER:]
    material = seeded_key(f"benchmark {seed}", pool)
    victim = train(private, replace(CONFIG, seed=seed), material=material).encoder
    surrogate = extract(BlackBox(victim), attacker, replace(EXTRACTION, seed=seed))
    own = train(attacker, replace(CONFIG, seed=1000 + seed, watermark="none", epochs=30)).encoder

    def standardized(encoder: EncoderLike, shown: Tensor) -> NDArray[np.float64]:
        reference = represent(encoder, attacker).double().numpy()
        out: NDArray[np.float64] = (represent(encoder, shown).double().numpy() - reference.mean(0)) / reference.std()
        return out

    def known(shown: Tensor, encoder: EncoderLike) -> Known:
        pixels = shown.double().flatten(1).numpy() / 255
        return Known(pixels=pixels, surrogate=standardized(encoder, shown), own=standardized(own, shown))

    probe_labels = labels[ATTACKER:][material.key.probe_indices()]
    rows = []
    for name, encoder in (("victim", victim), ("independent", own), ("surrogate", surrogate)):
        before, after = known(attacker, encoder), known(material.probes, encoder)
        for transform, change in transforms(before).items():
            if name != "surrogate" and transform != "none":
                continue
            found = change(after).astype(np.float32).astype(np.float64)
            result = check_encoder(material, found, DECOYS)
            rows.append(
                {
                    "seed": seed,
                    "encoder": name,
                    "transform": transform,
                    "dim": found.shape[1],
                    "pvalue": result.pvalue,
                    "z": {m: score.z for m, score in result.maps.items()},
                    "accuracy": accuracy(change(before), labels[PRIVATE:ATTACKER], found, probe_labels),
                    "versions": versions(),
                }
            )
            print(f"seed {seed}  {name:12s}{transform:52s} p {result.pvalue:.5f}", flush=True)
    return rows


def accuracy(
    fitted: NDArray[np.float64], labels: NDArray[np.int64], tested: NDArray[np.float64], wanted: NDArray[np.int64]
) -> float:
    """Return the accuracy of a linear classifier of representations."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(fitted, labels)
    return float(model.score(tested, wanted))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])


def run(arguments: argparse.Namespace) -> None:
    """Measure the seeds and replace their rows."""
    for seed in arguments.seeds:
        ROWS.replace(measure(seed), lambda row: (row["seed"], row["encoder"], row["transform"]))
