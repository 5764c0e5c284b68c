"""`turnmark attack linear-eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attacks_for_eval.choices import Classifier
from cli import inputs, render
from cli.options import DATA_HELP, Arch, Seed, Size, TestData, choice

HELP = (
    "Measure how useful an encoder is: the accuracy of a linear classifier on its frozen representations (the paper's "
    "Algorithm 3)."
)


def linear_eval(
    encoder: Annotated[Path, typer.Argument(help="Train folder or encoder file.", show_default=False)],
    data: Annotated[str, typer.Argument(help="Labeled training images. " + DATA_HELP, show_default=False)],
    test: TestData,
    classifier: Annotated[
        Classifier,
        choice(
            Classifier,
            "--classifier",
            help="exact: logistic regression to convergence; sgd or lars: the paper's training loop.",
        ),
    ] = "exact",
    arch: Arch = None,
    size: Size = None,
    seed: Seed = 0,
) -> None:
    """Print the accuracy with its confidence interval."""
    inputs.check_encoder(encoder, "encoder")
    inputs.check_images(data)
    inputs.check_images(test, what="--test")

    from attacks_for_eval.evaluation.linear import linear_evaluation
    from ownership.errors import DataError
    from watermark_training.data import load_data
    from watermark_training.loaded_encoder import load_trained

    loaded = load_trained(encoder, arch)
    with render.progress(render.LOADING):
        learnt, held_out = load_data(data, size=size), load_data(test, size=size)
    if learnt.labels is None or held_out.labels is None:
        raise DataError("linear evaluation needs labels", "class folders, an .npz with y, or a named data set")
    with render.progress() as progress:
        result = linear_evaluation(
            loaded.encoder,
            (learnt.images, learnt.labels),
            (held_out.images, held_out.labels),
            method=classifier,
            seed=seed,
            progress=progress,
        )
    low, high = result.confidence_interval
    render.line(
        f"top-1 {100 * result.accuracy:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f}), "
        f"{result.classes} classes, {result.n_train} training and {result.n_test} test images, {result.method}"
    )
