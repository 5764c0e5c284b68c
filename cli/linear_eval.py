"""`turnmark linear-eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import render
from cli.options import DATA_HELP, Arch, Seed, Size

HELP = "How useful an encoder is: accuracy of a linear classifier on its frozen representations (Algorithm 3)."


def linear_eval(
    encoder: Annotated[Path, typer.Argument(help="Train folder or encoder file.", show_default=False)],
    data: Annotated[str, typer.Argument(help="Labelled training images. " + DATA_HELP, show_default=False)],
    test: Annotated[str, typer.Option(help="Labelled test images, described like DATA.", show_default=False)],
    method: Annotated[
        str, typer.Option(help="exact: logistic regression to convergence; sgd or lars: the paper's loop.")
    ] = "exact",
    arch: Arch = None,
    size: Size = None,
    seed: Seed = 0,
) -> None:
    """Prints the accuracy with its interval."""
    from attacks_for_eval.evaluation.linear import linear_evaluation
    from ownership.errors import DataError
    from watermark_training.data import load_data
    from watermark_training.train_folder import load_trained

    loaded = load_trained(encoder, arch)
    learnt, held_out = load_data(data, size=size), load_data(test, size=size)
    if learnt.labels is None or held_out.labels is None:
        raise DataError("linear evaluation needs labels", "class folders, an .npz with y, or a named data set")
    with render.progress() as progress:
        result = linear_evaluation(
            loaded.encoder,
            (learnt.images, learnt.labels),
            (held_out.images, held_out.labels),
            method=method,  # type: ignore[arg-type]  # checked there
            seed=seed,
            progress=progress,
        )
    low, high = result.confidence_interval
    render.out.print(
        f"top-1 {100 * result.accuracy:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f}), "
        f"{result.classes} classes, {result.n_train} training and {result.n_test} test images, {result.method}"
    )
