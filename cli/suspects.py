"""Opening what `turnmark audit` is given: a file, recorded representations, or an endpoint."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import render

if TYPE_CHECKING:
    from ownership import Claim, Suspect
    from ownership.suspects.formats.open import LoadOptions
    from ownership.suspects.sandbox.encoder import Limits

Probes = Annotated[
    Path | None,
    typer.Option(
        help="The suspect is recorded representations (.npy, .safetensors, .parquet) of the pictures in this folder, "
        "which turnmark claim probes made.",
        show_default=False,
    ),
]
Api = Annotated[str, typer.Option(help="Language of an endpoint: turnmark, openai or base64.")]
Model = Annotated[str | None, typer.Option(help="Model that an endpoint is asked for.", show_default=False)]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, max=256, help="Images a request to an endpoint.")]
Transcript = Annotated[
    Path | None,
    typer.Option(
        help="Folder where an endpoint's answers are kept, so that none is paid for twice; in the report's folder if "
        "not given.",
        show_default=False,
    ),
]
AllowHttp = Annotated[
    bool, typer.Option("--allow-http", help="Send images and token to another machine's http:// address in the clear.")
]
AuditorPanel = Annotated[
    Path | None,
    typer.Option(
        "--auditor-panel",
        help="Folder of independent encoders that you, the auditor, bring: if the claim calls more of them copies "
        "than alpha allows, it is indiscriminate. NAME.txt beside NAME.onnx says where that one comes from.",
        show_default=False,
    ),
]
PanelModels = Annotated[
    Path | None,
    typer.Option(
        "--panel-models",
        help="Folder of the panel members' files: their answers are computed anew and compared with the claim's.",
        show_default=False,
    ),
]
Output = Annotated[
    str | None, typer.Option("--output", help="Name of the ONNX output that is the representation.", show_default=False)
]
Pooling = Annotated[str, typer.Option("--pooling", help="Of models that answer with tokens: cls or mean.")]
ExternalData = Annotated[
    bool, typer.Option("--external-data", help="Read the files beside an ONNX model that it names.")
]
AllowTorchscript = Annotated[
    bool, typer.Option("--allow-torchscript", help="Run TorchScript, a program, in the sandbox.")
]
TimeLimit = Annotated[
    float, typer.Option("--time-limit", min=1, help="Seconds for loading, or for some images (32 MiB of them).")
]
MemoryLimit = Annotated[
    float | None,
    typer.Option("--memory-limit", min=1, help="GiB of address space; 12 and four times the file.", show_default=False),
]
MaxModelGib = Annotated[float, typer.Option("--max-model-gib", min=0.001, help="Largest file that is opened, in GiB.")]


def limits_of(time_limit: float, memory_limit: float | None, max_model_gib: float) -> Limits:
    """Returns what a suspect may take: seconds, GiB, GiB."""
    from ownership.suspects.sandbox.encoder import Limits

    return Limits(
        seconds=time_limit,
        memory_bytes=None if memory_limit is None else round(memory_limit * 2**30),
        file_bytes=round(max_model_gib * 2**30),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Without:
    """How a suspect without a file is asked: the options of `turnmark audit` that only such suspects have."""

    probes: Path | None = None
    api: str = "turnmark"
    model: str | None = None
    batch_size: int = 64
    transcript: Path | None = None
    allow_http: bool = False


def report_folder(suspect: str) -> Path:
    """Returns where the report goes if nobody says: a name of the file's, or of the endpoint's host."""
    from ownership.suspects.endpoint.endpoint import host_of, is_address

    if is_address(suspect):
        return Path("report-" + re.sub(r"[^\w.-]", "_", host_of(suspect, allow_http=True)) + "-endpoint")
    path = Path(suspect)
    return Path(f"report-{path.stem}-{path.suffix[1:]}" if path.suffix else f"report-{path.name}")


def open_suspect(
    suspect: str,
    options: LoadOptions,
    limits: Limits,
    output_kind: str,
    how: Without,
    *,
    claim: Claim,
    out: Path,
    stop_early: bool,
) -> tuple[Suspect, list[str]]:
    """Opens a suspect of any form.

    Returns:
        The suspect, and the beginning of the command that audits it again.

    Raises:
        SuspectError: if it cannot be opened, or options do not fit its form.
    """
    from ownership import SuspectError, load_suspect
    from ownership.auditing.session import queries
    from ownership.suspects.endpoint.endpoint import command_words, is_address, load_endpoint
    from ownership.suspects.formats.open import LoadOptions
    from ownership.suspects.recorded.recorded import load_recorded

    if is_address(suspect):
        if how.probes is not None or options != LoadOptions():
            raise SuspectError("an endpoint takes neither --probes nor options of a file", "leave them out")
        folder = how.transcript or out / "transcript"
        opened = load_endpoint(
            suspect,
            folder,
            token=os.environ.get("TURNMARK_TOKEN") or None,
            api=how.api,
            model=how.model,
            output_kind=output_kind,
            batch_size=how.batch_size,
            allow_http=how.allow_http,
        )
        most, first = queries(claim)
        early = "" if first is None or stop_early else f"; with --stop-early perhaps only {first}"
        render.err.print(f"asking for up to {most} answers{early}; kept in {folder}", markup=False, soft_wrap=True)
        words = command_words(suspect, how.api, how.model, allow_http=how.allow_http)
        return opened, [*words, *(["--transcript", str(how.transcript)] if how.transcript else [])]
    if replace(how, probes=None) != Without():
        raise SuspectError(
            "--api, --model, --batch-size, --transcript and --allow-http are for endpoints", "give an https:// address"
        )
    if how.probes is not None:
        if stop_early or options != LoadOptions():
            raise SuspectError(
                "recorded representations take neither --stop-early nor options of a model", "leave them out"
            )
        words = ["turnmark", "audit", suspect, "--probes", str(how.probes)]
        return load_recorded(suspect, how.probes, output_kind=output_kind), words
    words = ["turnmark", "audit", suspect]
    for name, value in asdict(options).items():
        if value != getattr(LoadOptions(), name):
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return load_suspect(suspect, output_kind=output_kind, options=options, limits=limits), words
