"""The entry point: the commands, and the one place where errors become a line and an exit code.

Exit codes: 0 done or supported; 1 not supported or inconclusive (a report exists); 2 usage or input refused;
4 a layer of the sandbox is missing; 6 a claim or report fails verification, or a report is not reproduced;
130 interrupted.
"""

from __future__ import annotations

import os
import sys

import typer

from cli import (
    audit,
    claim,
    demo,
    doctor,
    embed,
    evaluate,
    linear_eval,
    pack,
    panel,
    render,
    report,
    seal,
    serve,
    show,
    steal,
    train,
)
from ownership.errors import OwnershipError
from ownership.io.text import printable

app = typer.Typer(
    name="turnmark",
    help="Proves, with error rates attached, whether an image encoder was copied from its owner's.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(help=demo.HELP)(demo.demo)
app.command(help=train.HELP)(train.train)
app.command(help=embed.HELP)(embed.embed)
app.command(help=panel.HELP)(panel.panel)
app.command(help=pack.HELP)(pack.pack)
app.command(help=show.HELP)(show.show)
app.command(help=seal.KEYGEN)(seal.keygen)
app.add_typer(claim.app, name="claim")
app.command(help=steal.HELP)(steal.steal)
app.command(help=audit.HELP)(audit.audit)
app.add_typer(report.app, name="report")
app.command(help=evaluate.HELP)(evaluate.evaluate)
app.command(help=doctor.HELP)(doctor.doctor)
app.command("linear-eval", help=linear_eval.HELP)(linear_eval.linear_eval)
app.command(help=serve.HELP)(serve.serve)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Show the version and stop."),
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"turnmark {installed('turnmark')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main() -> None:
    """Runs the command line; every `OwnershipError` ends here."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        app()
    except OwnershipError as e:
        render.error(e)
        sys.exit(e.exit_code)
    except KeyboardInterrupt:
        render.interrupted()
        sys.exit(130)
    except OSError as e:  # no space left, a pipe closed, a device gone
        render.error(OwnershipError(f"{printable(e.strerror or e)}: {printable(e.filename or 'input or output')}"))
        sys.exit(2)


if __name__ == "__main__":
    main()
