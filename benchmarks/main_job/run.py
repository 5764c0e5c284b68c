"""Run the demo's job with a panel over seeds and data sets: train, claim, extract, audit.

    python -m benchmarks.main_job run digits --seeds 0 1 2 3 4 --work runs/digits
    python -m benchmarks.main_job run fashion-mnist --seeds 0 --work runs/fashion

One row is one audit; running a seed replaces its rows. Models lie under `--work` and are never committed. The run
resumes model by model.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from attacks_for_eval.claims.panel_spec import PanelSpec, panel_specs
from attacks_for_eval.demo import INDEPENDENTS, JobConfig, run_job, summary
from benchmarks.common.machine import versions
from benchmarks.common.rows import RowStore
from cli.render import progress
from ownership.io.canonical import canonical_json, sha256
from ownership.plan import Plan
from watermark_training.data import load_data

ROWS = RowStore("main_job")

# What docs/results/main-job.md shows: a rotation watermark against a panel.
ROTATIONS = (
    *(s for s in INDEPENDENTS if s.watermark != "keyed"),
    PanelSpec(name="half_turn", watermark="paper", trains_on_private=True),
)
DIGITS = JobConfig(
    watermark="secret",
    extraction_epochs=100,
    reference_epochs=100,
    panel=panel_specs(rotation_invariant=False),
    independents=ROTATIONS,
)
# The pilot's size: 10,000 private images, a 0.3 M parameter encoder, eight epochs; two independents of each kind.
FASHION = replace(
    DIGITS,
    arch="small",
    n_private=10_000,
    n_public=3_000,
    epochs=8,
    independent_epochs=6,
    batch_size=256,
    lr=2e-3,
    flip=True,
    extraction_epochs=8,
    queries=(10_000, 2_048),
    reference_epochs=24,
    independents=(
        *ROTATIONS,
        PanelSpec(name="same_data_2", watermark="none", trains_on_private=True),
        PanelSpec(name="other_data_2", watermark="none", trains_on_private=False),
        PanelSpec(name="foreign_key_other_data", watermark="secret", trains_on_private=False),
        PanelSpec(name="half_turn_other_data", watermark="paper", trains_on_private=False),
    ),
)


def config_of(data: str, seed: int) -> JobConfig:
    """Return the configuration of one run: the demo's sizes on the digits, the pilot's on Fashion-MNIST."""
    return replace(DIGITS if data == "digits" else FASHION, seed=seed)


def run_seed(data: str, seed: int, work: Path) -> None:
    """Run one job and replace its rows."""
    config = config_of(data, seed)
    key = sha256(canonical_json({"data": data, **asdict(config), "plan": Plan(seed=config.seed).to_dict()}))[:16]
    with progress() as show:
        audited = run_job(load_data(data), work / f"seed-{seed}", config, progress=show)
    rows = [{"key": key, "data": data, "seed": seed, "versions": versions(), **summary(row)} for row in audited]
    ROWS.replace(rows, lambda r: (r["data"], r["seed"]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("data", choices=("digits", "fashion-mnist"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--work", type=Path, default=Path("runs"))


def run(arguments: argparse.Namespace) -> None:
    """Run the jobs of all seeds."""
    for seed in arguments.seeds:
        run_seed(arguments.data, seed, arguments.work)
        Console(stderr=True).print(f"{arguments.data}, seed {seed}: done")
