"""The entry point: the commands, and the one place where errors become a line and an exit code.

Exit codes: 0 done or supported; 1 not supported or inconclusive (a report exists); 2 usage or input refused;
4 a layer of the sandbox is missing; 6 a claim or report fails verification, or a report is not reproduced;
129, 130, 143 interrupted by SIGHUP, Ctrl-C, SIGTERM.
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
    extract,
    key,
    linear_eval,
    pack,
    panel,
    render,
    report,
    seal,
    serve,
    show,
    train,
    twins,
)
from cli.ending import Ending, heeding_signals
from ownership.errors import OwnershipError
from ownership.io.text import printable

app = typer.Typer(
    name="turnmark",
    help="Tell, with error rates attached, whether an image encoder was copied from its owner's.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
attack = typer.Typer(
    help="Extract surrogates and measure error rates.",
    no_args_is_help=True,
)
attack.command(help=extract.HELP, short_help="Train a surrogate from a victim's responses.")(extract.extract)
attack.command(help=evaluate.HELP, short_help="Measure error rates on a grid of models.")(evaluate.evaluate)
attack.command("linear-eval", help=linear_eval.HELP, short_help="Measure the accuracy of a linear probe.")(
    linear_eval.linear_eval
)
attack.command(help=serve.HELP, short_help="Serve an encoder over HTTP for experiments.")(serve.serve)

app.command(help=demo.HELP, short_help="Run the whole method on real images in a few minutes.")(demo.demo)
app.add_typer(key.app, name="key")
app.command(help=train.HELP, short_help="Train an encoder with a secret watermark.")(train.train)
app.command(help=embed.HELP, short_help="Add a watermark to a trained encoder.")(embed.embed)
app.add_typer(twins.app, name="twins")
app.command(help=panel.HELP, short_help="Train the reference panel of a claim.")(panel.panel)
app.command(help=pack.HELP, short_help="Decode pictures once into one .npy file.")(pack.pack)
app.command(help=show.HELP, short_help="Describe a train folder or an encoder.")(show.show)
app.add_typer(claim.app, name="claim")
app.command(help=audit.HELP, short_help="Test whether a suspect was copied from a victim.")(audit.audit)
app.add_typer(report.app, name="report")
app.add_typer(attack, name="attack")
app.command(help=seal.KEYGEN, short_help="Create signing keys.")(seal.keygen)
app.command(help=doctor.HELP, short_help="Show the sandbox layers of this machine.")(doctor.doctor)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Show the version and exit."),
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"turnmark {installed('turnmark')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main() -> None:
    """Run the command line; every `OwnershipError` ends here."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with heeding_signals() as ending:
        _run(ending)


def _run(ending: Ending) -> None:
    try:
        app()
    except OwnershipError as e:
        render.error(e)
        sys.exit(e.exit_code)
    except SystemExit as end:  # typer makes one of KeyboardInterrupt
        if end.code != 130:
            raise
        render.interrupted()
        sys.exit(ending.exit_code)
    except KeyboardInterrupt:
        render.interrupted()
        sys.exit(ending.exit_code)
    except OSError as e:  # no space left, a pipe closed, a device gone
        render.error(OwnershipError(f"{printable(e.strerror or e)}: {printable(e.filename or 'input or output')}"))
        sys.exit(2)


if __name__ == "__main__":
    main()
