"""`turnmark demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import render
from cli.options import DATA_HELP, Seed

HELP = (
    "Run the main job on real images: train a watermarked victim and a panel, build a claim, steal the victim, and "
    "audit thefts and independent encoders from their files. A few minutes on two cores; the same command resumes."
)
MOST_IMAGES = 1800
SIDE = 16


def demo(
    data: Annotated[str, typer.Option(help=DATA_HELP + f" The demo takes {MOST_IMAGES} images at most.")] = "digits",
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("turnmark-demo"),
    seed: Seed = 0,
) -> None:
    """Runs the job and prints one table."""
    import torch
    from rich.table import Table

    from attacks_for_eval.demo import demo_config, run_job
    from ownership.stats import format_p
    from watermark_training.data import Data, load_data

    loaded = load_data(data, size=SIDE)
    if len(loaded) > MOST_IMAGES:
        rows = torch.randperm(len(loaded), generator=torch.Generator().manual_seed(0))[:MOST_IMAGES]
        loaded = Data(name=f"{data}, {MOST_IMAGES} images", images=loaded.images[rows], labels=None)
    _same_job(out, {"data": data, "seed": seed})
    with render.progress(counted=False) as progress:
        results = run_job(loaded, out, demo_config(seed), progress=progress)
    table = Table(title=f"{data}, seed {seed}", title_justify="left", box=None, padding=(0, 1))
    for name in ("suspect", "format", "verdict"):
        table.add_column(name)
    shown = {
        "partial_rsa_relative": "p distance",
        "watermark_probability": "p watermark",
        "inference_gmm": "p data set",
    }
    for title in shown.values():
        table.add_column(title, justify="right")
    for row in results:
        p = {r.name: format_p(r.pvalue) for r in row.report.results}
        verdict = row.report.verdict.value if row.as_expected else f"{row.report.verdict.value} (unexpected)"
        table.add_row(row.name, row.format, verdict, *(p.get(name, "–") for name in shown))
    render.out.print(table)
    best = next(row for row in results if row.role == "surrogate")
    render.out.print(f"open {best.folder / 'report.html'}", markup=False, soft_wrap=True)
    unexpected = sum(not row.as_expected for row in results)
    if unexpected:
        render.err.print(f"{unexpected} of {len(results)} verdicts are not what they should be")
        raise typer.Exit(1)


def _same_job(out: Path, record: dict[str, object]) -> None:
    """One folder holds one job: says so instead of mixing two."""
    from ownership.errors import TrainingError
    from ownership.io.files import read_json, write_json

    path = out / "demo.json"
    if not path.is_file():
        write_json(path, record)
    elif read_json(path, TrainingError, "demo") != record:
        raise TrainingError(f"{out} holds the demo of other data or another seed", "choose another --out")
