"""`turnmark evaluate`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from cli import render
from cli.options import DATA_HELP, Arch, Out, Size

HELP = (
    "Make thefts of your victim and independent encoders by a grid, audit each from its file against your claim, and "
    "write results.csv, results.json, roc.png and summary.html. The same command resumes."
)


def evaluate(
    victim: Annotated[Path, typer.Argument(help="Train folder of the victim.", show_default=False)],
    claim: Annotated[Path, typer.Option(help="Its claim.", show_default=False)],
    queries: Annotated[str, typer.Option(help="Images the thieves ask about. " + DATA_HELP, show_default=False)],
    others: Annotated[str, typer.Option(help="Images the independents are trained on.", show_default=False)],
    out: Out,
    method: Annotated[list[str] | None, typer.Option(help="Theft; give it many times.", show_default=False)] = None,
    loss: Annotated[list[str] | None, typer.Option(help="Loss of the thefts; many.", show_default=False)] = None,
    count: Annotated[list[int] | None, typer.Option(help="Queries a theft; many.", show_default=False)] = None,
    launder: Annotated[
        list[str] | None,
        typer.Option(help="Laundering of models: prune:50, fine_tune:3, distil:infonce:small_vgg; many."),
    ] = None,
    output: Annotated[
        list[str] | None, typer.Option(help="Laundering of answers: permute, pad, pca, noisy, ...; many.")
    ] = None,
    independent: Annotated[
        list[str] | None,
        typer.Option(help="Independents, OBJECTIVE[:MARK]: simclr, simsiam, barlow, rotated, supervised, ...; many."),
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(help="An independent encoder that exists, any suspect's file; many.", show_default=False),
    ] = None,
    labelled: Annotated[
        str | None, typer.Option(help="Labelled images to learn a linear probe from.", show_default=False)
    ] = None,
    test: Annotated[str | None, typer.Option(help="Labelled images to test it on.", show_default=False)] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images, of every model.")] = 12,
    images: Annotated[int, typer.Option(min=8, help="Images an independent.")] = 2000,
    seeds: Annotated[int, typer.Option(min=1, help="Models of each combination.")] = 1,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Draw so many of the surrogates' audits only.", show_default=False)
    ] = None,
    jobs: Annotated[int, typer.Option(help="Models at a time.")] = 1,
    backend: Annotated[
        str | None, typer.Option(help="joblib's backend: loky, threading, dask, ray, ...", show_default=False)
    ] = None,
    arch: Arch = None,
    size: Size = None,
) -> None:
    """Runs the grid and writes the table, the picture and the page."""
    from attacks_for_eval.evaluation.evaluate import Case, Evaluation
    from attacks_for_eval.evaluation.evaluate import evaluate as run
    from attacks_for_eval.evaluation.grid import Grid, backend_of, given_models
    from attacks_for_eval.evaluation.rates import rates, write_summary
    from watermark_training.data import load_data
    from watermark_training.train_folder import load_trained

    known = load_trained(victim, arch)
    given = {
        "methods": method,
        "losses": loss,
        "archs": [arch or known.architecture or "small"],
        "queries": count,
        "launderings": launder,
        "outputs": output,
        "independents": independent,
    }
    grid = Grid(
        **{name: tuple(values) for name, values in given.items() if values},  # type: ignore[arg-type]
        images=images,
        epochs=epochs,
        seeds=seeds,
    )
    evaluation = Evaluation(
        out=out,
        cases={"claim": Case(name="claim", victim=victim, claim=claim)},
        sources={"queries": load_data(queries, size=size), "others": load_data(others, size=size)},
        labelled=(load_data(labelled, size=size), load_data(test, size=size)) if labelled and test else None,
    )
    cells = [*grid.cells("claim", sample=sample), *given_models(model or (), "claim")]
    with backend_of(backend, jobs) if backend else nullcontext(), render.progress() as progress:
        rows = run(evaluation, cells, jobs=jobs, progress=progress)
    write_summary(rows, out, victim.name)
    for rate in rates(rows, lambda r: f"{r['role']}s"):
        low, high = rate.interval
        render.out.print(f"{rate.name}: {rate.found} of {rate.n} SUPPORTED (95 % {low:.3f} to {high:.3f})")
    render.out.print(f"open {out / 'summary.html'}; {out / 'results.csv'}", markup=False, soft_wrap=True)
