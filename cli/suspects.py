"""Opening what `turnmark audit` is given: a file, recorded representations, or an endpoint."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import render
from cli.inputs import is_address
from cli.options import choice
from ownership.io.text import printable
from ownership.suspects.choices import Pooling as PoolingName
from ownership.suspects.choices import Protocol

if TYPE_CHECKING:
    from ownership import Claim, Suspect
    from ownership.suspects.formats.model_file import LoadOptions
    from ownership.suspects.sandbox.encoder import Limits

ProbeFolder = Annotated[
    Path | None,
    typer.Option(
        "--probe-folder",
        help="The suspect is recorded representations (.npy, .safetensors, .parquet) of the pictures in this folder, "
        "which turnmark claim probes wrote.",
        show_default=False,
    ),
]
Api = Annotated[Protocol, choice(Protocol, "--api", help="Protocol of an endpoint.")]
ApiModel = Annotated[
    str | None,
    typer.Option("--api-model", help="Model that an endpoint is asked for, by name.", show_default=False),
]
RequestSize = Annotated[int, typer.Option("--request-size", min=1, max=256, help="Images per request to an endpoint.")]
Transcript = Annotated[
    Path | None,
    typer.Option(
        "--transcript",
        help=(
            "Folder that keeps an endpoint's responses, so that no query is paid for twice [default: transcript in "
            "the report's folder]."
        ),
        show_default=False,
    ),
]
AllowHttp = Annotated[
    bool,
    typer.Option("--allow-http", help="Send images and token unencrypted to an http:// address of another machine."),
]
AuditorPanel = Annotated[
    Path | None,
    typer.Option(
        "--auditor-panel",
        help="Folder of independent encoders that you, the auditor, bring. If the tests reject for more of them than "
        "alpha allows, the claim is indiscriminate. NAME.txt beside NAME.onnx states where that encoder comes from. "
        "Files that are no encoders by their names are left out and named.",
        show_default=False,
    ),
]
PoolOfKey = Annotated[
    str | None,
    typer.Option(
        "--pool",
        help="All images that the claim's key was made for, as for turnmark key new. Up to 1,000 that are no probes "
        "are asked, too, to find a suspect that recognizes the probes and answers them with another encoder.",
        show_default=False,
    ),
]
Published = Annotated[
    str | None,
    typer.Option(
        "--published",
        metavar="DATE",
        help="Date from which the suspect is known to exist (2026-05-01). It shows whether the key was committed to "
        "before.",
        show_default=False,
    ),
]
Models = Annotated[
    Path | None,
    typer.Option(
        "--models",
        help="Folder with the files of the claim's encoders (victim, panel, reference surrogates), each found by its "
        "SHA-256: their representations are computed again and compared with those in the claim.",
        show_default=False,
    ),
]
EntryName = Annotated[
    str | None,
    typer.Option(
        "--entry",
        help="Entry of a checkpoint that is the encoder, such as state_dict_ema or teacher. Not given: every one that "
        "fits an architecture is tried, each at its share of alpha.",
        show_default=False,
    ),
]
OnnxOutput = Annotated[
    str | None,
    typer.Option(
        "--onnx-output",
        help="Which of several outputs is the representation: its name in ONNX, its key in a dictionary or its "
        "position in a tuple in .pt2 and TorchScript. Left out: the only one, or the only one named so.",
        show_default=False,
    ),
]
Pooling = Annotated[
    PoolingName,
    choice(
        PoolingName,
        "--pooling",
        help="How several vectors of an image become one: cls is the first and mean the mean of tokens "
        "(n, tokens, d); channels-first is the mean of (n, d, positions) and (n, d, h, w), channels-last of "
        "(n, tokens, d) and (n, h, w, d); auto takes the mean of maps whose shape tells, and refuses the rest.",
    ),
]
ExternalData = Annotated[
    bool, typer.Option("--external-data", help="Also read the files beside an ONNX model that it refers to.")
]
AllowTorchscript = Annotated[
    bool, typer.Option("--allow-torchscript", help="Run TorchScript, which is a program, in the sandbox.")
]
TimeLimit = Annotated[
    float,
    typer.Option("--time-limit", min=1, help="Seconds for loading the model, and for each 32 MiB of images."),
]
MemoryLimit = Annotated[
    float | None,
    typer.Option(
        "--memory-limit",
        min=1,
        help="GiB of address space [default: 12, plus four times the file's size].",
        show_default=False,
    ),
]
MaxModelGib = Annotated[float, typer.Option("--max-model-gib", min=0.001, help="Largest file that is opened, in GiB.")]


def limits_of(time_limit: float, memory_limit: float | None, max_model_gib: float) -> Limits:
    """Return the resources that a suspect may use: seconds, GiB, GiB."""
    from ownership.suspects.sandbox.encoder import Limits

    return Limits(
        seconds=time_limit,
        memory_bytes=None if memory_limit is None else round(memory_limit * 2**30),
        file_bytes=round(max_model_gib * 2**30),
    )


OF_A_MODEL = {
    "arch", "entry", "onnx_output", "pooling", "external_data", "allow_torchscript", "time_limit", "memory_limit",
    "max_model_gib", "preprocess",
}  # fmt: skip
OF_AN_ENDPOINT = {"api", "api_model", "request_size", "transcript", "allow_http"}
"""Parameters of `audit` and `report reproduce` that apply to one form of suspect only."""


def check_options(context: typer.Context, suspect: str) -> None:
    """Refuse the options of a command line that do not apply to the form of a suspect.

    Args:
        context: of the command; options that were not given are not looked at.
        suspect: a file, a folder, or an address.

    Raises:
        typer.BadParameter: if an option was given that has no effect on this suspect.
    """
    given = {p for p in context.params if str(context.get_parameter_source(p)).endswith("COMMANDLINE")}
    if is_address(suspect):
        form, unfit = "an endpoint", given & (OF_A_MODEL | {"probe_folder"})
    elif "probe_folder" in given:
        form, unfit = "recorded representations", given & (OF_A_MODEL | OF_AN_ENDPOINT)
        unfit |= {"stop_early", "pool"} & given
    else:
        form, unfit = "a model's file", given & OF_AN_ENDPOINT
    if unfit:
        options = ", ".join(sorted(f"--{name.replace('_', '-')}" for name in unfit))
        said = "does" if len(unfit) == 1 else "do"
        raise typer.BadParameter(f"{printable(suspect, 300)} is {form}, to which {options} {said} not apply")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSuspectOptions:
    """How a suspect behind an endpoint is queried."""

    api: Protocol = "turnmark"
    model: str | None = None
    batch_size: int = 64
    transcript: Path | None = None
    allow_http: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a suspect is opened: of the three parts, the one that fits its form is used, and the others must be unset."""

    load: LoadOptions
    limits: Limits
    remote: RemoteSuspectOptions = field(default_factory=RemoteSuspectOptions)
    probe_folder: Path | None = None
    output_kind: str = "representations"
    stop_early: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """What one audit opens, and where it writes.

    Attributes:
        suspect: A file, folder, or address, as the user gave it.
        folder: The report's folder, where an endpoint's responses are kept, too.
    """

    suspect: str
    folder: Path


def report_folder(suspect: str) -> Path:
    """Return the default folder of a report, named after the suspect's file or its endpoint's host."""
    if is_address(suspect):
        from ownership.suspects.endpoint.address import host_of

        return Path("report-" + re.sub(r"[^\w.-]", "_", host_of(suspect, allow_http=True)) + "-endpoint")
    path = _named(suspect)
    return Path(f"report-{path.stem}-{path.suffix[1:]}" if path.suffix else f"report-{path.name}")


def _named(suspect: str) -> Path:
    """Return the path of a suspect, whole where what was given has no name, as `.` and `..` have none."""
    path = Path(suspect)
    return path.resolve() if path.name in ("", "..") else path


def say_left_out(auditor_panel: Path | None) -> None:
    """Name what is no encoder in the folder of the auditor's own encoders."""
    from ownership.suspects.suspect import left_out_of

    names = [] if auditor_panel is None else left_out_of(auditor_panel)
    if names:
        files = "1 file" if len(names) == 1 else f"{len(names)} files"
        render.warn(
            f"--auditor-panel: {files} left out, no encoders by their names: {', '.join(map(printable, names))}"
        )


def open_suspect(target: Target, how: Opening, claim: Claim) -> Suspect:
    """Open a suspect of any form.

    Args:
        target: the suspect and the report's folder.
        how: the options.
        claim: for the number of queries that it will take.

    Raises:
        SuspectError: if it cannot be opened.
    """
    from ownership import load_suspect
    from ownership.suspects.recorded.recorded import load_recorded

    suspect = target.suspect
    if is_address(suspect):
        return _open_endpoint(target, how, claim)
    if how.probe_folder is None:
        return load_suspect(_named(suspect), output_kind=how.output_kind, options=how.load, limits=how.limits)
    return load_recorded(suspect, how.probe_folder, output_kind=how.output_kind)


def _open_endpoint(target: Target, how: Opening, claim: Claim) -> Suspect:
    from ownership.auditing.session import queries
    from ownership.suspects.endpoint.endpoint import load_endpoint

    remote = how.remote
    folder = remote.transcript or target.folder / "transcript"
    opened = load_endpoint(
        target.suspect,
        folder,
        token=os.environ.get("TURNMARK_TOKEN") or None,
        api=remote.api,
        model=remote.model,
        output_kind=how.output_kind,
        batch_size=remote.batch_size,
        allow_http=remote.allow_http,
    )
    most, first = queries(claim)
    early = "" if first is None or how.stop_early else f"; with --stop-early possibly only {first}"
    render.err.print(f"up to {most} queries{early}; responses are kept in {folder}", markup=False, soft_wrap=True)
    return opened


def command_words(suspect: str, how: Opening) -> list[str]:
    """Return the beginning of the command that audits a suspect in this way; for people to read."""
    from ownership.suspects.endpoint.endpoint import command_words as endpoint_words
    from ownership.suspects.formats.model_file import LoadOptions

    remote = how.remote
    if is_address(suspect):
        words = endpoint_words(suspect, remote.api, remote.model, allow_http=remote.allow_http)
        return [*words, *(["--transcript", remote.transcript.resolve().name] if remote.transcript else [])]
    words = ["turnmark", "audit", Path(suspect).resolve().name]
    if how.probe_folder is not None:
        return [*words, "--probe-folder", how.probe_folder.resolve().name]
    for name, value in asdict(how.load).items():
        if value != getattr(LoadOptions(), name):
            option = {"output": "onnx-output"}.get(name, name.replace("_", "-"))
            words += [f"--{option}", *([] if value is True else [str(value)])]
    return words
