"""`turnmark attack serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cli import inputs, render
from cli.options import BUDGET_HELP, Arch

HELP = (
    "Serve an encoder over HTTP (POST /represent), to try extraction attacks and audits against a live endpoint. The "
    "token is read from TURNMARK_TOKEN. For experiments, not for production."
)


def serve(
    victim: Annotated[Path, typer.Argument(help="Train folder or encoder file.", show_default=False)],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    per_minute: Annotated[
        int | None, typer.Option(min=1, help="Largest number of images per minute.", show_default=False)
    ] = None,
    budget: Annotated[int | None, typer.Option("--budget", min=1, help=BUDGET_HELP, show_default=False)] = None,
    decimals: Annotated[
        int | None, typer.Option(min=0, help="Round responses to this many decimals.", show_default=False)
    ] = None,
    noise: Annotated[float, typer.Option(min=0.0, help="Standard deviation of noise added to responses.")] = 0.0,
    arch: Arch = None,
) -> None:
    """Serve until interrupted, then print how many images were answered."""
    inputs.check_encoder(victim, "victim")

    from ownership.io.extras import require

    require("starlette")
    require("uvicorn")
    import uvicorn

    from attacks_for_eval.extraction.black_box import BlackBox, Perturbation
    from attacks_for_eval.serve import make_app
    from watermark_training.loaded_encoder import load_trained

    perturbation = Perturbation(decimals=decimals, noise=noise)
    box = BlackBox(load_trained(victim, arch).encoder, budget=budget, perturbation=perturbation)
    app = make_app(box, token=os.environ.get("TURNMARK_TOKEN"), per_minute=per_minute)
    render.err.print(f"serving {victim} at http://{host}:{port}/represent; stop with Ctrl-C", markup=False)
    uvicorn.run(app, host=host, port=port, log_level="warning", lifespan="off")
    render.line(f"answered {box.queries} images, {box.unique_images} of them different")
