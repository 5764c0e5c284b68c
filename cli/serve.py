"""`turnmark serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cli import render
from cli.options import Arch

HELP = (
    "Serve an encoder over HTTP (POST /represent), to try thefts and audits against a live endpoint. The token is read "
    "from TURNMARK_TOKEN. For trials, not for production."
)


def serve(
    victim: Annotated[Path, typer.Argument(help="Train folder or encoder file.", show_default=False)],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    per_minute: Annotated[int | None, typer.Option(min=1, help="Most images a minute.", show_default=False)] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Most images in all.", show_default=False)] = None,
    decimals: Annotated[
        int | None, typer.Option(min=0, help="Round answers to so many decimals.", show_default=False)
    ] = None,
    noise: Annotated[float, typer.Option(min=0.0, help="Standard deviation of noise on answers.")] = 0.0,
    arch: Arch = None,
) -> None:
    """Serves until interrupted, then says how many images were answered."""
    from attacks_for_eval.extraction.black_box import BlackBox
    from attacks_for_eval.serve import make_app
    from ownership.errors import OwnershipError
    from watermark_training.train_folder import load_trained

    try:
        import uvicorn
    except ImportError as e:
        raise OwnershipError("serving needs starlette and uvicorn", "pip install 'turnmark[serve]'") from e
    box = BlackBox(load_trained(victim, arch).encoder, budget=budget, decimals=decimals, noise=noise)
    app = make_app(box, token=os.environ.get("TURNMARK_TOKEN"), per_minute=per_minute)
    render.err.print(f"serving {victim} at http://{host}:{port}/represent; stop with Ctrl-C")
    uvicorn.run(app, host=host, port=port, log_level="warning", lifespan="off")
    render.out.print(f"answered {box.queries} images, {box.unique_images} of them different")
