"""`turnmark report sign`, `attach`, `verify` and `reproduce`: what an auditor stands for, and how others check it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import render
from cli.options import Arch
from cli.seal import Before, Request, Roots, SigningKey, Tsa, ask_for_times, ask_passphrase, roots_in, say, stamped_line
from cli.suspects import (
    AllowHttp,
    AllowTorchscript,
    AuditorPanel,
    ExternalData,
    MaxModelGib,
    MemoryLimit,
    Output,
    PanelModels,
    Pooling,
    Probes,
    TimeLimit,
    Transcript,
    Without,
    limits_of,
    open_suspect,
)

app = typer.Typer(help="Sign reports, verify them, audit again what they are of.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The report's folder: report.json and report.html.", show_default=False)]
PublicKey = Annotated[
    Path | None,
    typer.Option(help="The auditor's public key, from the auditor: else anybody may have signed.", show_default=False),
]


@app.command(
    help="Sign a report with its chain of custody: report.html shows both afterwards, and neither file can be changed."
)
def sign(
    report: Folder,
    signing_key: SigningKey,
    auditor: Annotated[str | None, typer.Option(help="Your name.", show_default=False)] = None,
    received: Annotated[
        list[str] | None,
        typer.Option(
            help='How something came to you: "WHAT: from NAME, YYYY-MM-DD", and ", by NAME" where it was not you. WHAT '
            "is claim, suspect, probes, panel [NAME] or auditor [NAME]. Give it many times.",
            show_default=False,
        ),
    ] = None,
    request: Request = None,
    tsa: Tsa = None,
    roots: Roots = None,
) -> None:
    """Signs, renders the page anew, timestamps."""
    from ownership.attestation.keys import load_signing_key
    from ownership.reports.signature import sign_report, signed_report

    trusted = roots_in(roots)
    key = load_signing_key(signing_key, ask_passphrase)
    made, new = sign_report(report, key, auditor=auditor, received=received or ())
    say([f"signed: {report}" if new else f"signed already with this key, and nothing changed: {report}"])
    say([f"key {made.public_key_sha256}", *(f"custody: {line}" for line in made.custody.lines())])
    ask_for_times(report, made, request, tsa, trusted, signed_report)


@app.command(help="Store a timestamp authority's reply with a signed report.")
def attach(
    report: Folder,
    reply: Annotated[Path, typer.Argument(help="The authority's reply (.tsr).", show_default=False)],
    roots: Roots = None,
) -> None:
    """Stores a timestamp."""
    from ownership.errors import OwnershipError
    from ownership.io.files import read_bytes
    from ownership.reports.signature import signed_report
    from ownership.sealing.create import attach as store

    data = read_bytes(reply, OwnershipError, "reply")
    say([stamped_line(store(report, data, roots_in(roots), opened=signed_report))])


@app.command(help="Verify a report, a line a check; ends with 6 if one fails.")
def verify(report: Folder, public_key: PublicKey = None, roots: Roots = None, before: Before = None) -> None:
    """Prints a line a check."""
    from ownership.attestation.timestamps import parse_date
    from ownership.reports.signature import verify_report

    date = None if before is None else parse_date(before)
    say(verify_report(report, public_key=public_key, roots=roots_in(roots), before=date))


@app.command(
    help="Audit again what a report is of, in the same way, and compare number by number. Ends with 0 if everything is "
    "the same within the tolerance, 6 if not."
)
def reproduce(
    report: Annotated[Path, typer.Argument(help="The report's folder, or its report.json.", show_default=False)],
    claim: Annotated[Path, typer.Option(help="The claim's folder.", show_default=False)],
    suspect: Annotated[
        str, typer.Option(help="The suspect's file, recorded rows with --probes, or an address.", show_default=False)
    ],
    tolerance: Annotated[
        float, typer.Option(min=0, max=0.1, help="Largest difference of two scores, relative; p-values: .001.")
    ] = 1e-4,
    arch: Arch = None,
    auditor_panel: AuditorPanel = None,
    panel_models: PanelModels = None,
    output: Output = None,
    pooling: Pooling = "cls",
    external_data: ExternalData = False,
    allow_torchscript: AllowTorchscript = False,
    time_limit: TimeLimit = 300.0,
    memory_limit: MemoryLimit = None,
    max_model_gib: MaxModelGib = 8.0,
    probes: Probes = None,
    transcript: Transcript = None,
    allow_http: AllowHttp = False,
) -> None:
    """Audits again and prints the comparison."""
    from ownership.auditing.reproduce import check_claim, circumstances
    from ownership.auditing.reproduce import reproduce as run
    from ownership.claims.claim import Claim
    from ownership.reports.signature import load_report
    from ownership.suspects.formats.open import LoadOptions
    from ownership.suspects.suspect import load_folder

    stored = load_report(report)
    loaded_claim = Claim.load(claim)
    check_claim(stored, loaded_claim)
    how = circumstances(stored.command)
    given = LoadOptions(
        arch=arch, output=output, pooling=pooling, external_data=external_data, allow_torchscript=allow_torchscript
    )
    session = Without(
        probes=probes,
        api=stored.suspect.get("api", "turnmark"),
        model=stored.suspect.get("model"),
        transcript=transcript,
        allow_http=allow_http,
    )
    loaded, _ = open_suspect(
        suspect,
        how.options(given),
        limits_of(time_limit, memory_limit, max_model_gib),
        stored.output_kind,
        session,
        claim=loaded_claim,
        out=report if report.is_dir() else report.parent,
        stop_early=how.stop_early,
    )
    try:
        with render.progress() as progress:
            found = run(
                stored,
                loaded_claim,
                loaded,
                how=how,
                auditor_panel=load_folder(auditor_panel) if auditor_panel else (),
                panel_models=[model for model, _ in load_folder(panel_models)] if panel_models else None,
                tolerance=tolerance,
                progress=progress,
            )
    finally:
        loaded.discard()
    render.reproduction(found)
    found.require()
