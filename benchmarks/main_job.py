"""The main job over seeds and data sets: how often surrogates are found and independent encoders are left alone.

    python benchmarks/main_job.py digits --seeds 0 1 2 3 4 --work runs/digits
    python benchmarks/main_job.py fashion-mnist --seeds 0 --work runs/fashion

Every audit is one row of `benchmarks/results/main_job.jsonl`, with the hash of configuration and plan; running a seed
replaces its rows, models lie under --work and are never committed. The run resumes model by model. `--table` prints the
committed rows as the tables of docs/results.md and runs nothing.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from attacks_for_eval.demo import INDEPENDENTS, JobConfig, PanelSpec, demo_config, run_job, summary
from cli.render import progress
from ownership.auditing.engine import versions
from ownership.io.canonical import canonical_json, sha256
from ownership.plan import Plan
from ownership.stats import format_p
from watermark_training.data import load_data

RESULTS = Path(__file__).parent / "results" / "main_job.jsonl"

# The pilot's size: 10,000 private images, a 0.3 M parameter encoder, eight epochs; two of each kind of stranger.
FASHION = JobConfig(
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
        *INDEPENDENTS,
        PanelSpec(name="same_data_2", watermark="none", trains_on_private=True),
        PanelSpec(name="other_data_2", watermark="none", trains_on_private=False),
        PanelSpec(name="foreign_key_other_data", watermark="secret", trains_on_private=False),
        PanelSpec(name="half_turn_other_data", watermark="paper", trains_on_private=False),
    ),
)

SHOWN = {  # columns of the tables, of what the rows have
    "partial_rsa_relative": "partial RSA, relative",
    "partial_rsa": "partial RSA",
    "watermark_probability": "watermark certainty",
    "watermark_success": "watermark success",
    "partial_rsa_rotated": "answers to turned images",
    "cka": "CKA",
}


def config_of(data: str, seed: int) -> JobConfig:
    """Returns the configuration of one run: the demo's on the digits, the pilot's size on Fashion-MNIST."""
    return demo_config(seed) if data == "digits" else replace(FASHION, seed=seed)


def stored() -> list[dict[str, Any]]:
    """Returns the committed rows."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def run(data: str, seed: int, work: Path) -> None:
    """Runs one job and replaces its rows."""
    config = config_of(data, seed)
    key = sha256(canonical_json({"data": data, **asdict(config), "plan": Plan(seed=config.seed).to_dict()}))[:16]
    with progress(counted=False) as show:
        rows = run_job(load_data(data), work / f"seed-{seed}", config, progress=show)
    kept = [r for r in stored() if (r["data"], r["seed"]) != (data, seed)]
    kept += [{"key": key, "data": data, "seed": seed, "versions": versions(), **summary(row)} for row in rows]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("".join(json.dumps(r, sort_keys=True) + "\n" for r in kept))


def table() -> None:
    """Prints the rows as Markdown."""
    rows = stored()
    for data in sorted({r["data"] for r in rows}):
        print(f"\n### {data}\n")
        mine = [r for r in rows if r["data"] == data]
        shown = [t for t in SHOWN if any(t in r["tests"] for r in mine)]
        print(f"| suspect | seed | verdict (safetensors, ONNX) | {' | '.join(f'{SHOWN[t]}, p' for t in shown)} |")
        print(f"|{'---|' * (3 + len(shown))}")
        for name, seed in dict.fromkeys((r["suspect"], r["seed"]) for r in mine):
            pair = [r for r in mine if (r["suspect"], r["seed"]) == (name, seed)]
            tests = pair[0]["tests"]
            cells = [f"{tests[t]['value']:.3f}, {format_p(tests[t]['pvalue'])}" if t in tests else "–" for t in shown]
            verdicts = ", ".join(r["verdict"] for r in sorted(pair, key=lambda r: r["format"], reverse=True))
            print(f"| {name} | {seed} | {verdicts} | {' | '.join(cells)} |")
        for role in ("surrogate", "independent"):
            group = [r for r in mine if r["role"] == role]
            print(f"\n{role}s as expected: {sum(r['as_expected'] for r in group)} of {len(group)} audits")


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", choices=("digits", "fashion-mnist"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        table()
        return
    if arguments.data is None:
        parser.error("name the data set, or --table")
    for seed in arguments.seeds:
        run(arguments.data, seed, arguments.work)
        Console(stderr=True).print(f"{arguments.data}, seed {seed}: done")


if __name__ == "__main__":
    main()
