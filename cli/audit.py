"""`turnmark audit`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli import inputs, render
from cli.auditing import Request, audit_batch, audit_one
from cli.options import Arch, AsJson, ClaimFolder, Jobs, OutputKind, Roots
from cli.suspects import (
    AllowHttp,
    AllowTorchscript,
    Api,
    ApiModel,
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
    Published,
    RemoteSuspectOptions,
    RequestSize,
    Target,
    TimeLimit,
    Transcript,
    check_options,
    limits_of,
    report_folder,
    say_left_out,
)
from ownership.errors import OwnershipError

HELP = (
    "Test whether a suspect was copied from a claim's victim, and write report.json and report.html. Exit code 0: the "
    "claim is supported; 1: it is not, or the audit is inconclusive. With several suspects: 0 if one is supported "
    "after correction for their number, else 2 if one could not be audited, else 1. The report's folder is "
    "report-NAME-SUFFIX unless --out is given; with several suspects it is reports, with a folder for each."
)


def audit(
    context: typer.Context,
    suspect: Annotated[
        list[str],
        typer.Argument(
            help="A model (safetensors, .pt/.pth state dict, .pt2, ONNX, or a folder of config.json and weights); "
            "recorded representations with --probe-folder; or the https:// address of an endpoint (token from "
            "TURNMARK_TOKEN). Several suspects also get a summary, corrected for their number.",
            show_default=False,
        ),
    ],
    claim: ClaimFolder,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write into.", show_default=False)] = None,
    arch: Arch = None,
    auditor_panel: AuditorPanel = None,
    models: Models = None,
    pool: PoolOfKey = None,
    published: Published = None,
    stop_early: Annotated[
        bool,
        typer.Option(
            "--stop-early",
            help=(
                "Query in batches, as the claim's plan fixes them, and stop at the first interim analysis that "
                "supports the claim. For suspects whose responses cost money."
            ),
        ),
    ] = False,
    output_kind: OutputKind = "representations",
    roots: Roots = None,
    paper_tests: Annotated[
        bool,
        typer.Option("--paper-tests", help="Add the paper's own tests (Tables 5, 18, 19). They never decide."),
    ] = False,
    preprocess: Annotated[
        str | None,
        typer.Option(
            help="Applied to images in [0, 1] first: none, imagenet, half, clip, bytes, caffe, bgr+NAME, "
            "mean=R,G,B/std=R,G,B; or try, which tests several, each at its share of alpha. Not given: what the "
            "suspect's files state; none if they state nothing; try for bare weights of a library.",
            show_default=False,
        ),
    ] = None,
    entry: EntryName = None,
    onnx_output: OnnxOutput = None,
    pooling: Pooling = "auto",
    external_data: ExternalData = False,
    allow_torchscript: AllowTorchscript = False,
    time_limit: TimeLimit = 300.0,
    memory_limit: MemoryLimit = None,
    max_model_gib: MaxModelGib = 8.0,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Also write report.pdf. Needs an installed Chromium or Chrome.")
    ] = False,
    as_json: AsJson = False,
    probe_folder: ProbeFolder = None,
    api: Api = "turnmark",
    api_model: ApiModel = None,
    request_size: RequestSize = 64,
    transcript: Transcript = None,
    allow_http: AllowHttp = False,
    jobs: Jobs = 1,
) -> None:
    """Audit one suspect or several; write and print the report or the summary."""
    if pdf and len(suspect) > 1:
        raise typer.BadParameter("--pdf is for one suspect; print the pages that you need from their report.html")
    if len(set(suspect)) < len(suspect):
        raise typer.BadParameter("a suspect is named twice")
    if len(suspect) > 1 and (stop_early or models):
        raise typer.BadParameter(
            "--stop-early and --models are for one suspect: an interim analysis has a smaller share of alpha "
            "among several; check the claim in an audit of one"
        )
    if preprocess is not None:
        inputs.check_preprocess(preprocess)
    for one in suspect:
        check_options(context, one)
    _check_suspects(suspect, probe_folder)
    inputs.check_claim(claim)
    if pool is not None:
        inputs.check_images(pool, least=200, what="pool")

    from ownership.attestation.timestamps import past_date
    from ownership.reports.pdf import find_browser
    from ownership.suspects.formats.model_file import LoadOptions

    if pdf:
        find_browser()  # before anything long
    say_left_out(auditor_panel)
    opening = Opening(
        load=LoadOptions(
            arch=arch,
            entry=entry,
            output=onnx_output,
            pooling=pooling,
            external_data=external_data,
            allow_torchscript=allow_torchscript,
        ),
        limits=limits_of(time_limit, memory_limit, max_model_gib),
        remote=RemoteSuspectOptions(
            api=api, model=api_model, batch_size=request_size, transcript=transcript, allow_http=allow_http
        ),
        probe_folder=probe_folder,
        output_kind=output_kind,
        stop_early=stop_early,
    )
    request = Request(
        claim=claim,
        opening=opening,
        preprocess=preprocess,
        auditor_panel=auditor_panel,
        models=models,
        pool=pool,
        paper_tests=paper_tests,
        published=published and past_date(published).isoformat(),
        roots=roots,
    )
    if len(suspect) > 1:
        _several(request, suspect, out or Path("reports"), jobs, as_json=as_json)
    else:
        target = Target(suspect[0], out or report_folder(suspect[0]))
        _one(request, target, pdf=pdf, as_json=as_json)


def _check_suspects(suspects: list[str], probe_folder: Path | None) -> None:
    """Raise the error of the first suspect if none can be audited; of several, say at once which will be refused."""
    errors = []
    for suspect in suspects:
        try:
            inputs.check_suspect(suspect, probe_folder)
        except OwnershipError as e:
            errors.append(e)
    if len(errors) == len(suspects):
        raise errors[0]
    for refused in errors:
        render.warn(f"{refused.message}; {refused.hint}; the other suspects are audited")


def _one(request: Request, target: Target, *, pdf: bool, as_json: bool) -> None:
    from ownership.reports.pdf import write_pdf
    from ownership.verdict.rule import Verdict

    report, out = audit_one(request, target, partial(render.progress, "reading the claim")), target.folder
    if pdf:
        write_pdf(out / "report.html", out / "report.pdf")
    if as_json:
        render.data(report.to_dict(), sort_keys=True)
    else:
        render.report(report)
        render.line(f"report: {out / 'report.html'}")
    if report.verdict is not Verdict.SUPPORTED:
        raise typer.Exit(1)


def _several(request: Request, suspects: list[str], out: Path, jobs: int, *, as_json: bool) -> None:
    summary = audit_batch(request, suspects, out, jobs)
    if as_json:
        render.data(summary.to_dict(), sort_keys=True)
    else:
        render.several(summary)
        render.line(f"summary: {out / 'summary.html'}, with a link to each report")
    raise typer.Exit(summary.exit_code)
