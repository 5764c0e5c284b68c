"""`turnmark audit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cli import render
from cli.auditing import Request, audit_batch, audit_one
from cli.options import Arch
from cli.suspects import (
    AllowHttp,
    AllowTorchscript,
    Api,
    AuditorPanel,
    BatchSize,
    ExternalData,
    MaxModelGib,
    MemoryLimit,
    Model,
    Output,
    PanelModels,
    Pooling,
    Probes,
    TimeLimit,
    Transcript,
    Without,
    limits_of,
    report_folder,
)

HELP = (
    "Audit a suspect against a claim and write report.json and report.html. Ends with 0 if the claim is supported, "
    "1 if it is not or the audit is inconclusive. Several suspects: with 0 if one is supported after correction for "
    "their number, else with 2 if one could not be audited, else with 1."
)


def audit(
    suspect: Annotated[
        list[str],
        typer.Argument(
            help="A model (safetensors, .pt/.pth state dict, .pt2, ONNX, or a folder of config.json and weights); "
            "recorded representations with --probes; or the https:// address of an endpoint (token from "
            "TURNMARK_TOKEN). Several get a summary, too, corrected for their number.",
            show_default=False,
        ),
    ],
    claim: Annotated[Path, typer.Option(help="The claim's folder.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the report; report-NAME-SUFFIX if not given. Of several suspects: for the summary and a "
            "folder for each; reports if not given.",
            show_default=False,
        ),
    ] = None,
    arch: Arch = None,
    auditor_panel: AuditorPanel = None,
    panel_models: PanelModels = None,
    stop_early: Annotated[
        bool,
        typer.Option(
            "--stop-early",
            help="Ask look by look, as the claim's plan says, and no more once a look supports the claim: for suspects "
            "whose answers cost money.",
        ),
    ] = False,
    output_kind: Annotated[
        str, typer.Option(help="What the suspect gives out: representations, logits, posteriors or labels.")
    ] = "representations",
    roots: Annotated[
        Path | None,
        typer.Option(help="Root certificates (PEM) that the claim's timestamps must chain to.", show_default=False),
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Add the paper's own tests (Tables 5, 18, 19); they never decide.")
    ] = False,
    preprocess: Annotated[
        str,
        typer.Option(
            help="Done to images in [0, 1] first: none, imagenet, half, clip, bytes, caffe, bgr+NAME, "
            "mean=R,G,B/std=R,G,B, or try: several, each at its share of alpha."
        ),
    ] = "none",
    output: Output = None,
    pooling: Pooling = "cls",
    external_data: ExternalData = False,
    allow_torchscript: AllowTorchscript = False,
    time_limit: TimeLimit = 300.0,
    memory_limit: MemoryLimit = None,
    max_model_gib: MaxModelGib = 8.0,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Write report.pdf as well, with a Chromium or Chrome that is there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    probes: Probes = None,
    api: Api = "turnmark",
    model: Model = None,
    batch_size: BatchSize = 64,
    transcript: Transcript = None,
    allow_http: AllowHttp = False,
    jobs: Annotated[int, typer.Option(min=1, help="Of several suspects: how many at a time.")] = 1,
) -> None:
    """Audits, writes and prints a report, or a summary of several."""
    from ownership.errors import SuspectError
    from ownership.reports.pdf import find_browser, write_pdf
    from ownership.suspects.formats.open import LoadOptions
    from ownership.verdict.rule import Verdict

    if pdf:
        find_browser()  # before anything long

    request = Request(
        claim=claim,
        options=LoadOptions(
            arch=arch, output=output, pooling=pooling, external_data=external_data, allow_torchscript=allow_torchscript
        ),
        limits=limits_of(time_limit, memory_limit, max_model_gib),
        how=Without(
            probes=probes, api=api, model=model, batch_size=batch_size, transcript=transcript, allow_http=allow_http
        ),
        output_kind=output_kind,
        preprocess=preprocess,
        auditor_panel=auditor_panel,
        panel_models=panel_models,
        stop_early=stop_early,
        paper=paper,
        roots=roots,
    )
    if len(suspect) > 1:
        if pdf:
            raise SuspectError("--pdf is for one suspect", "print the pages that are wanted")
        several = audit_batch(request, suspect, out or Path("reports"), jobs)
        if as_json:
            typer.echo(json.dumps(several.to_dict(), indent=2, sort_keys=True))
        else:
            render.several(several)
            render.out.print(f"summary: {(out or Path('reports')) / 'summary.html'}", markup=False, soft_wrap=True)
        raise typer.Exit(several.exit_code)
    out = out or report_folder(suspect[0])
    report = audit_one(request, suspect[0], out, render.progress)
    if pdf:
        write_pdf(out / "report.html", out / "report.pdf")
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, sort_keys=True))
    else:
        render.report(report)
        render.out.print(f"report: {out / 'report.html'}", markup=False, soft_wrap=True)
    if report.verdict is not Verdict.SUPPORTED:
        raise typer.Exit(1)
