"""`turnmark demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import inputs, render
from cli.options import DATA_HELP, Seed

HELP = (
    "Run the whole method on real images: train a victim with a keyed watermark, build a claim, extract surrogates "
    "from the victim, and audit surrogates and independent encoders from their files. No panel is trained. Takes "
    "one to three minutes on two cores. Uses at most 1,800 images. Keys follow from --seed, so that the demo repeats "
    "itself. The same command resumes."
)
MOST_IMAGES = 1800
SIDE = 16


def demo(
    data: Annotated[str, typer.Option("--data", help=DATA_HELP)] = "digits",
    out: Annotated[Path, typer.Option("--out", help="Folder to write into.")] = Path("turnmark-demo"),
    seed: Seed = 0,
) -> None:
    """Run the job and print one table."""
    inputs.check_images(data)

    from ownership.io.extras import require

    require("onnxscript")  # before anything long
    import torch

    from attacks_for_eval.demo import JobConfig, run_job
    from watermark_training.data import Data, load_data

    with render.progress(render.LOADING):
        loaded = load_data(data, size=SIDE)
    if len(loaded) > MOST_IMAGES:
        rows = torch.randperm(len(loaded), generator=torch.Generator().manual_seed(0))[:MOST_IMAGES]
        loaded = Data(name=f"{data}, {MOST_IMAGES} images", images=loaded.images[rows], labels=None)
    _same_job(out, {"data": data, "seed": seed})
    with render.progress() as progress:
        results = run_job(loaded, out, JobConfig(seed=seed), progress=progress)
    render.demo(results, f"{data}, seed {seed}")
    best = next(row for row in results if row.role == "surrogate")
    render.line(f"open {best.folder / 'report.html'}")
    unexpected = sum(not row.as_expected for row in results)
    if unexpected:
        render.warn(f"{unexpected} of {len(results)} verdicts are not as expected (marked with !)")
        raise typer.Exit(1)


def _same_job(out: Path, record: dict[str, object]) -> None:
    """Refuse a folder that holds the demo of other data or another seed."""
    from ownership.errors import TrainingError
    from ownership.io.files import read_json, write_json

    path = out / "demo.json"
    if not path.is_file():
        write_json(path, record)
    elif read_json(path, TrainingError, "demo") != record:
        raise TrainingError(f"{out} holds the demo of other data or another seed", "choose another --out")
