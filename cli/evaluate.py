"""`turnmark attack evaluate`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from attacks_for_eval.choices import ExtractionMethod, IndependentObjective, Loss, OutputTransform, WeightTransform
from cli import inputs, render
from cli.options import (
    EPOCHS_HELP,
    LOSS_HELP,
    METHOD_HELP,
    N_QUERIES_HELP,
    Arch,
    ClaimFolder,
    Jobs,
    Others,
    Out,
    Size,
    choice,
)

HELP = (
    "Extract surrogates of your victim and train independent encoders on a grid, audit each from its file against your "
    "claim, and write results.csv, results.json, roc.png and summary.html. Repeat --method, --loss, --n-queries, "
    "--weight-transform, --output-transform, --independent and --independent-file for several values. The same command "
    "resumes."
)


def evaluate(
    victim: Annotated[Path, typer.Argument(help="Train folder of the victim.", show_default=False)],
    claim: ClaimFolder,
    query_data: Annotated[
        str, typer.Option(help="Images that the victim is queried with, described like --others.", show_default=False)
    ],
    others: Others,
    out: Out,
    method: Annotated[
        list[str] | None,
        choice(ExtractionMethod, "--method", help=METHOD_HELP, without=("recreate-head", "access-head")),
    ] = None,
    loss: Annotated[list[str] | None, choice(Loss, "--loss", help=LOSS_HELP)] = None,
    n_queries: Annotated[
        list[int] | None, typer.Option("--n-queries", min=8, help=N_QUERIES_HELP, show_default=False)
    ] = None,
    weight_transform: Annotated[
        list[str] | None,
        choice(
            WeightTransform,
            "--weight-transform",
            help="Evasion transform of the surrogate's weights, as in prune:50, fine_tune:3, embed:8, "
            "distil:infonce:small_vgg.",
            argument=True,
        ),
    ] = None,
    output_transform: Annotated[
        list[str] | None,
        choice(
            OutputTransform,
            "--output-transform",
            help="Evasion in front of the surrogate; a number or a name may follow a colon, and a plus joins several, "
            "as in append_own:10+rotate_basis.",
            argument=True,
            joined=True,
        ),
    ] = None,
    independent: Annotated[
        list[str] | None,
        choice(
            IndependentObjective,
            "--independent",
            help="Training of independent encoders, OBJECTIVE or OBJECTIVE:WATERMARK with WATERMARK secret or paper.",
            argument=True,
        ),
    ] = None,
    independent_file: Annotated[
        list[Path] | None,
        typer.Option(help="Existing independent encoder, any file that audit takes.", show_default=False),
    ] = None,
    labeled: Annotated[
        str | None,
        typer.Option(help="Labeled images for the training of a linear probe; needs --test.", show_default=False),
    ] = None,
    test: Annotated[str | None, typer.Option("--test", help="Labeled test images.", show_default=False)] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help=EPOCHS_HELP)] = 12,
    n_images: Annotated[int, typer.Option(min=8, help="Training images of each independent encoder.")] = 2000,
    seeds: Annotated[int, typer.Option(min=1, help="Models of each combination, with different seeds.")] = 1,
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Audit only this many surrogates, drawn at random.", show_default=False),
    ] = None,
    jobs: Jobs = 1,
    backend: Annotated[
        str | None, typer.Option(help="joblib's backend: loky, threading, dask, ray, ...", show_default=False)
    ] = None,
    arch: Arch = None,
    size: Size = None,
) -> None:
    """Run the grid and write the table, the figure and the page."""
    if (labeled is None) != (test is None):
        raise typer.BadParameter("--labeled and --test go together")
    inputs.check_encoder(victim, "victim")
    inputs.check_claim(claim)
    inputs.check_images(query_data, what="--query-data")
    inputs.check_images(others, what="--others")
    for path in independent_file or ():
        inputs.check_suspect(str(path))

    from attacks_for_eval.evaluation.evaluate import Case, Evaluation
    from attacks_for_eval.evaluation.evaluate import evaluate as run
    from attacks_for_eval.evaluation.grid import Grid, existing_models, joblib_backend
    from attacks_for_eval.evaluation.rates import rates, write_summary
    from watermark_training.data import load_data
    from watermark_training.loaded_encoder import load_trained

    known = load_trained(victim, arch)
    default = Grid()
    grid = Grid(
        methods=tuple(method or default.methods),
        losses=tuple(loss or default.losses),
        archs=(arch or known.architecture or "small",),
        queries=tuple(n_queries or default.queries),
        weight_transforms=tuple(weight_transform or ()),
        output_transforms=tuple(output_transform or ()),
        independents=tuple(independent or default.independents),
        images=n_images,
        epochs=epochs,
        seeds=seeds,
    )
    with render.progress(render.LOADING):
        evaluation = Evaluation(
            out=out,
            cases={"claim": Case(name="claim", victim=victim, claim=claim)},
            sources={"queries": load_data(query_data, size=size), "others": load_data(others, size=size)},
            labeled=(load_data(labeled, size=size), load_data(test, size=size)) if labeled and test else None,
        )
    cells = [*grid.cells("claim", sample=sample), *existing_models(independent_file or (), "claim")]
    with joblib_backend(backend, jobs) if backend else nullcontext(), render.progress() as progress:
        rows = run(evaluation, cells, jobs=jobs, progress=progress)
    write_summary(rows, out, victim.name)
    for rate in rates(rows, lambda r: f"{r['role']}s"):
        low, high = rate.interval
        render.line(f"{rate.name}: {rate.found} of {rate.n} SUPPORTED (95 % interval {low:.3f} to {high:.3f})")
    render.line(f"open {out / 'summary.html'}; {out / 'results.csv'}")
