"""`turnmark report`: how an auditor signs a report, and how others verify and reproduce it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import inputs, render
from cli.auditing import pool_images
from cli.options import Arch, Before, ClaimFolder, PublicKey, Request, Roots, SigningKey, Tsa
from cli.seal import ask_for_times, ask_passphrase, roots_in, say, stamped_line, trusted_date
from cli.suspects import (
    AllowHttp,
    AllowTorchscript,
    AuditorPanel,
    EntryName,
    ExternalData,
    MaxModelGib,
    MemoryLimit,
    Models,
    OnnxOutput,
    Opening,
    Pooling,
    PoolOfKey,
    ProbeFolder,
    RemoteSuspectOptions,
    Target,
    TimeLimit,
    Transcript,
    check_options,
    limits_of,
    open_suspect,
    say_left_out,
)

app = typer.Typer(help="Sign, verify and reproduce reports.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="Folder with report.json and report.html.", show_default=False)]


@app.command(
    help="Sign a report with its chain of custody. Afterwards report.html shows both, and a change of either file is "
    "detected.",
    short_help="Sign and timestamp a report.",
)
def sign(
    report: Folder,
    signing_key: SigningKey,
    auditor: Annotated[str | None, typer.Option(help="Your name.", show_default=False)] = None,
    received: Annotated[
        list[str] | None,
        typer.Option(
            help='Custody entry: "WHAT: from NAME, YYYY-MM-DD", with ", by NAME" if someone else received it. WHAT is '
            "claim, suspect, probes, model [NAME] or auditor [NAME]. Repeat for several entries.",
            show_default=False,
        ),
    ] = None,
    request: Request = None,
    tsa: Tsa = None,
    roots: Roots = None,
) -> None:
    """Sign, render the page again and timestamp."""
    inputs.check_report(report)
    inputs.check_file(signing_key, "--signing-key")
    inputs.check_file(roots, "--roots")

    from ownership.attestation.keys import load_signing_key
    from ownership.reports.signature import sign_report, signed_report

    trusted = roots_in(roots)
    key = load_signing_key(signing_key, ask_passphrase)
    made, new = sign_report(report, key, auditor=auditor, received=received or ())
    say([f"signed: {report}" if new else f"already signed with this key, and nothing changed: {report}"])
    say([f"key {made.public_key_sha256}", *(f"custody: {line}" for line in made.custody.lines())])
    ask_for_times(report, made, request, tsa, trusted, signed_report)


@app.command(help="Store a timestamp authority's reply with a signed report.", short_help="Store a timestamp reply.")
def attach(
    report: Folder,
    reply: Annotated[Path, typer.Argument(help="The authority's reply (.tsr).", show_default=False)],
    roots: Roots = None,
) -> None:
    """Store a timestamp."""
    inputs.check_report(report)
    inputs.check_file(reply, "reply")
    inputs.check_file(roots, "--roots")

    from ownership.errors import OwnershipError
    from ownership.io.files import read_bytes
    from ownership.reports.signature import signed_report
    from ownership.sealing.create import attach as store

    data = read_bytes(reply, OwnershipError, "reply")
    say([stamped_line(store(report, data, roots_in(roots), opened=signed_report))])


@app.command(
    help="Verify a report and print one line per check. Exit code 6: a check failed.",
    short_help="Verify a signed report.",
)
def verify(report: Folder, public_key: PublicKey = None, roots: Roots = None, before: Before = None) -> None:
    """Print one line per check."""
    inputs.check_report(report)
    date = trusted_date(public_key, roots, before)

    from ownership.reports.signature import verify_report

    say(verify_report(report, public_key=public_key, roots=roots_in(roots), before=date).lines())


@app.command(
    help=(
        "Repeat the audit that a report describes, with the options that it records, and compare every number. Exit "
        "code 0: all are the same within the tolerance; 6: some differ."
    ),
    short_help="Repeat an audit and compare its numbers.",
)
def reproduce(
    context: typer.Context,
    report: Folder,
    claim: ClaimFolder,
    suspect: Annotated[
        str,
        typer.Option(
            help="The suspect's file, its recorded representations with --probe-folder, or its address.",
            show_default=False,
        ),
    ],
    tolerance: Annotated[
        float,
        typer.Option(min=0, max=0.1, help="Largest relative difference of two scores; of p-values it is 0.001."),
    ] = 1e-4,
    arch: Arch = None,
    auditor_panel: AuditorPanel = None,
    models: Models = None,
    pool: PoolOfKey = None,
    entry: EntryName = None,
    onnx_output: OnnxOutput = None,
    pooling: Pooling = "auto",
    external_data: ExternalData = False,
    allow_torchscript: AllowTorchscript = False,
    time_limit: TimeLimit = 300.0,
    memory_limit: MemoryLimit = None,
    max_model_gib: MaxModelGib = 8.0,
    probe_folder: ProbeFolder = None,
    transcript: Transcript = None,
    allow_http: AllowHttp = False,
) -> None:
    """Audit again and print the comparison."""
    if not report.is_file():
        inputs.check_report(report)
    check_options(context, suspect)
    inputs.check_suspect(suspect, probe_folder)
    inputs.check_claim(claim)
    if pool is not None:
        inputs.check_images(pool, least=200, what="pool")

    from ownership.auditing.claim_checks import models_in
    from ownership.auditing.reproduce import check_claim, load_options
    from ownership.auditing.reproduce import reproduce as run
    from ownership.claims.claim import Claim
    from ownership.reports.signature import load_report
    from ownership.suspects.formats.model_file import LoadOptions
    from ownership.suspects.suspect import load_folder

    with render.progress("reading report and claim"):
        stored, loaded_claim = load_report(report), Claim.load(claim)
    check_claim(stored, loaded_claim)
    say_left_out(auditor_panel)
    given = LoadOptions(
        arch=arch,
        entry=entry,
        output=onnx_output,
        pooling=pooling,
        external_data=external_data,
        allow_torchscript=allow_torchscript,
    )
    opening = Opening(
        load=load_options(stored.options, given),
        limits=limits_of(time_limit, memory_limit, max_model_gib),
        remote=RemoteSuspectOptions(
            api=stored.options.api or "turnmark",
            model=stored.options.model,
            transcript=transcript,
            allow_http=allow_http,
        ),
        probe_folder=probe_folder,
        output_kind=stored.options.output_kind,
        stop_early=stored.options.stop_early,
    )
    folder = report if report.is_dir() else report.parent
    with (
        render.progress("opening the suspect") as progress,
        open_suspect(Target(suspect, folder), opening, loaded_claim) as loaded,
    ):
        found = run(
            stored,
            loaded_claim,
            loaded,
            auditor_panel=load_folder(auditor_panel) if auditor_panel else (),
            models=models_in(models, loaded_claim) if models else None,
            pool=pool_images(pool, loaded_claim) if pool else None,
            tolerance=tolerance,
            progress=progress,
        )
    render.reproduction(found)
    found.require()
