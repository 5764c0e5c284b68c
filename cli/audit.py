"""`turnmark audit`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli import render
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
    open_suspect,
    report_folder,
)

HELP = (
    "Audit a suspect against a claim and write report.json and report.html. Ends with 0 if the claim is supported, "
    "1 if it is not or the audit is inconclusive."
)


def audit(
    suspect: Annotated[
        str,
        typer.Argument(
            help="A model (safetensors, .pt/.pth state dict, .pt2, ONNX, or a folder of config.json and weights); "
            "recorded representations with --probes; or the https:// address of an endpoint (token from "
            "TURNMARK_TOKEN).",
            show_default=False,
        ),
    ],
    claim: Annotated[Path, typer.Option(help="The claim's folder.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; report-NAME-SUFFIX if not given.", show_default=False)
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
    answers: Annotated[
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    probes: Probes = None,
    api: Api = "turnmark",
    model: Model = None,
    batch_size: BatchSize = 64,
    transcript: Transcript = None,
    allow_http: AllowHttp = False,
) -> None:
    """Audits, writes and prints a report."""
    from dataclasses import replace

    from ownership import Claim, ClaimError, SuspectError, write_html
    from ownership import audit as run
    from ownership.errors import printable
    from ownership.loading import LoadOptions
    from ownership.preprocessing import parse_preprocess
    from ownership.report_seal import refuse_signed
    from ownership.suspect import load_folder
    from ownership.timestamps import load_roots
    from ownership.verdict import Verdict

    loaded_claim = Claim.load(claim)
    if roots is not None:
        if loaded_claim.seal is None:
            raise ClaimError("the claim is not sealed, so there are no timestamps to check", "leave out --roots")
        loaded_claim = replace(loaded_claim, seal=loaded_claim.seal.under(load_roots(roots)))
    tried = parse_preprocess(preprocess)
    out = out or report_folder(suspect)
    refuse_signed(out)
    options = LoadOptions(
        arch=arch, output=output, pooling=pooling, external_data=external_data, allow_torchscript=allow_torchscript
    )
    limits = limits_of(time_limit, memory_limit, max_model_gib)
    how = Without(
        probes=probes, api=api, model=model, batch_size=batch_size, transcript=transcript, allow_http=allow_http
    )
    loaded, command = open_suspect(
        suspect, options, limits, answers, how, claim=loaded_claim, out=out, stop_early=stop_early
    )
    if preprocess != "none" and loaded.layers is None:
        raise SuspectError("--preprocess is for models in files", "who embeds the images prepares them, too")
    command += ["--claim", str(claim)]
    command += ["--preprocess", preprocess] if preprocess != "none" else []
    command += ["--answers", answers] if answers != "representations" else []
    brought = load_folder(auditor_panel) if auditor_panel else []
    command += ["--auditor-panel", str(auditor_panel)] if auditor_panel else []
    command += ["--panel-models", str(panel_models)] if panel_models else []
    command += ["--stop-early"] if stop_early else []
    command += ["--paper"] if paper else []
    command += ["--roots", str(roots)] if roots else []
    try:
        with render.progress() as progress:
            report = run(
                loaded_claim,
                loaded,
                stop_early=stop_early,
                auditor_panel=brought,
                panel_models=[model for model, _ in load_folder(panel_models)] if panel_models else None,
                paper=paper,
                tried=tried,
                command=printable(shlex.join(command), 4000),
                progress=progress,
            )
    finally:
        loaded.discard()
    report.save(out / "report.json")
    write_html(report, out / "report.html")
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, sort_keys=True))
    else:
        render.report(report)
        render.out.print(f"report: {out / 'report.html'}", markup=False, soft_wrap=True)
    if report.verdict is not Verdict.SUPPORTED:
        raise typer.Exit(1)
