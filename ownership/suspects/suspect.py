"""Load suspects, which may be hostile, in a sandbox, and the owner's encoders in this process.

The format is detected from the content, not from the extension. The bytes of a suspect that are hashed are the bytes
that are loaded. `formats` defines what each format may contain, `sandbox` isolates the process that opens it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from ownership.encoders.architectures import is_architecture
from ownership.encoders.images import EncoderLike
from ownership.errors import SuspectError
from ownership.io.files import read_bytes
from ownership.io.text import printable
from ownership.suspects.choices import PreprocessingSource
from ownership.suspects.formats.adapter import AdaptedEncoder, resized
from ownership.suspects.formats.model_file import LoadOptions, open_model
from ownership.suspects.preprocessing import NONE, Preprocess, of_channels, parse_preprocess
from ownership.suspects.sandbox.copying import CONFIG, weights_of
from ownership.suspects.sandbox.description import Description
from ownership.suspects.sandbox.encoder import Limits, SandboxedEncoder

SUFFIXES = (".safetensors", ".pt", ".pth", ".pth.tar", ".ckpt", ".bin", ".onnx", ".pt2")
"""Ends of the names of encoders' files, in lower case; the format itself is detected from the content."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Suspect:
    """An encoder and the record of its origin. Use it as a context manager, or call `close`."""

    name: str  # the file's name, made printable
    format: str  # safetensors, pytorch, onnx, torch.export, torchscript
    sha256: str  # of the bytes that were loaded
    size: int  # bytes
    architecture: str | None  # of bare weights
    encoder: EncoderLike  # images (n, 3, h, w) float32 in [0, 1] -> representations (n, d)
    output_kind: str = "representations"  # declared kind of its output, a name in OUTPUT_KINDS
    preprocess: Preprocess = NONE  # applied to images before the encoder
    preprocess_from: PreprocessingSource = "files"  # why it is this one
    choices: tuple[Preprocess, ...] = ()  # preprocessings that it may want, where no file states one
    entry: str | None = None  # entry of its checkpoint that is asked; None: the loaded one
    entries: tuple[str, ...] = ()  # entries of its checkpoint that are encoders with different weights, if several
    files: dict[str, str] = field(default_factory=dict)  # name -> SHA-256, if it consists of several files
    details: Callable[[], dict[str, Any]] = dict  # called after the last query: further fields of the report

    @property
    def layers(self) -> dict[str, str] | None:
        """Isolation layer of its sandbox -> details of that layer; None for an encoder in this process."""
        return self.encoder.layers if isinstance(self.encoder, SandboxedEncoder) else None

    def asked(self) -> EncoderLike:
        """Return the encoder of images in [0, 1]: of its entry, after its preprocessing."""
        encoder, entry = self.encoder, self.entry
        if not isinstance(encoder, SandboxedEncoder) or entry is None:
            return self.preprocess.before(encoder)

        def selected(images: Tensor) -> Tensor:
            encoder.select(entry)
            return encoder(images)

        return self.preprocess.before(selected)

    def variants(self, preprocessings: Sequence[Preprocess] = ()) -> tuple[Suspect, ...]:
        """Return this suspect with every entry and every preprocessing that may be the right one.

        Args:
            preprocessings: Those that are declared; empty: what its files state, or what it may want.
        """
        source: PreprocessingSource = "option" if preprocessings else self.preprocess_from
        wanted = tuple(preprocessings) or self.choices or (self.preprocess,)
        entries = self.entries or (self.entry,)
        return tuple(replace(self, entry=e, preprocess=p, preprocess_from=source) for e in entries for p in wanted)

    @property
    def chosen(self) -> dict[str, str]:
        """What was chosen of its output, in words; complete after the first query."""
        return dict(self.encoder.choices) if isinstance(self.encoder, SandboxedEncoder) else {}

    def resizes(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Return height and width to which images `(n, c, h, w)` are resized for it; None if they are not resized."""
        if isinstance(self.encoder, SandboxedEncoder):
            return self.encoder.resizes(shape)
        return resized(self.encoder.size, shape) if isinstance(self.encoder, AdaptedEncoder) else None

    def pause(self) -> None:
        """End the suspect's process, if it has one. The next query starts it again."""
        if isinstance(self.encoder, SandboxedEncoder):
            self.encoder.pause()

    def close(self) -> None:
        """End the suspect's process and remove its private copy, if it has them. A closed suspect cannot be queried."""
        if isinstance(self.encoder, SandboxedEncoder):
            self.encoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


OUTPUT_KINDS: dict[str, tuple[str, ...] | None] = {
    "representations": None,
    "logits": ("partial_rsa", "cka"),
    "posteriors": ("partial_rsa", "cka"),
    "labels": ("cka",),
}
"""Declared kind of a suspect's output -> statistics that apply to it; None for all.

Only the statistics of representations can be primary. The panel is scored on representations, so its scores are no null
distribution for class scores.
"""


def check_output_kind(output_kind: str) -> None:
    """Raise SuspectError if there is no such kind of output."""
    if output_kind not in OUTPUT_KINDS:
        raise SuspectError(f"unknown kind of output {output_kind!r}", f"one of: {', '.join(OUTPUT_KINDS)}")


def load_suspect(
    path: Path | str,
    *,
    output_kind: str = "representations",
    options: LoadOptions | None = None,
    limits: Limits | None = None,
    preprocess: Preprocess | None = None,
) -> Suspect:
    """Load an encoder from a file that an adversary may have written, in a sandboxed process.

    Args:
        path: a file (safetensors, PyTorch state dict, `torch.export`, ONNX; detected from the content), or a folder
            with `config.json` and weights.
        output_kind: kind of the model's output, a name in `OUTPUT_KINDS`. It is declared, never detected.
        options: the architecture and other properties that the file does not state, and permissions.
        limits: time and memory that the suspect may use.
        preprocess: preprocessing that the model expects; None: what its files state, or what its library uses.

    Raises:
        SuspectError: if the file cannot be loaded as an encoder, or `output_kind` is unknown.
        UnsafeSuspectError: if loading would run code from the file; no code has run.
        SandboxError: if the file contains code and this machine lacks an isolation layer.
    """
    check_output_kind(output_kind)
    path = Path(path)
    encoder = SandboxedEncoder(path, options or LoadOptions(), limits)
    copy, described = encoder.copy, encoder.described
    known, source, choices = _preprocessing(described) if preprocess is None else (preprocess, "option", ())
    return Suspect(
        name=printable(path.name),
        format=encoder.format,
        sha256=copy.sha256,
        size=copy.size,
        architecture=encoder.architecture,
        encoder=encoder,
        output_kind=output_kind,
        preprocess=known,
        preprocess_from=source,
        choices=choices,
        entries=described.entries if len(described.entries) > 1 else (),
        files={printable(n): d for n, d in copy.files.items()} if len(copy.files) > 1 else {},
    )


def _preprocessing(described: Description) -> tuple[Preprocess, PreprocessingSource, tuple[Preprocess, ...]]:
    """Return the preprocessing of a model, where it comes from, and what to try where nothing states one."""
    if described.mean is None or described.std is None:  # bare weights hold it; a graph may, or may not
        return NONE, "assumed" if described.architecture is None else "files", ()
    found = of_channels(described.mean, described.std)
    if described.stated:
        return found, "files", ()
    return found, "library", (found, *(p for p in parse_preprocess("try") if p != found))


def load_encoder(path: Path | str, arch: str | None = None) -> Suspect:
    """Load the owner's encoder in this process; weights are loaded as a module that can be trained further.

    Weights and ONNX only, by the same restricted loaders. Formats that contain code are refused.

    Args:
        path: as in `load_suspect`. Of a folder, the digest is that of its weights.
        arch: architecture of bare weights; inferred from the weights if None.

    Raises:
        SuspectError: if the file cannot be loaded as an encoder, or holds several with different weights.
    """
    path = Path(path)
    beside = path / CONFIG if path.is_dir() else None
    path = weights_of(path) if path.is_dir() else path
    data = read_bytes(path, SuspectError, "encoder")
    opened = open_model(path, LoadOptions(arch=arch), missing_layers=("a sandboxed process",), config=beside)
    if opened.weights is not None and opened.weights.others:
        names = ", ".join(printable(e, 80) for e in (opened.weights.entry, *opened.weights.others))
        raise SuspectError(f"{printable(path, 300)} holds several encoders: {names}", "save the weights of one of them")
    return Suspect(
        name=printable(path.name),
        format=opened.format,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        architecture=opened.architecture,
        encoder=opened.encoder if opened.weights is None else opened.weights.normalised(),
    )


def load_folder(folder: Path | str) -> list[tuple[Suspect, str]]:
    """Load every encoder of a folder with its provenance, the text of the `.txt` file of the same name.

    `left_out_of` names the files that are no encoders by their names.

    Raises:
        SuspectError: if the folder contains no encoder, or one cannot be loaded.
        UnsafeSuspectError: if loading one would run code from its file.
    """
    files = [path for path in _visible(folder) if _suffix(path)]
    if not files:
        raise SuspectError(f"{printable(folder, 300)} contains no encoders", f"expected {', '.join(SUFFIXES)}")
    return list(_each(files))


def left_out_of(folder: Path | str) -> list[str]:
    """Return the names in a folder that `load_folder` leaves out: neither encoders nor their provenance nor hidden."""
    return [path.name for path in _visible(folder) if not _suffix(path) and path.suffix.lower() != ".txt"]


def load_known(folder: Path | str, known: Mapping[str, str | None]) -> list[Suspect]:
    """Load the encoders in a folder, or below it, whose files have known digests; other files are not opened.

    Args:
        folder: Where the files lie.
        known: SHA-256 of a file -> architecture of its weights; None to infer it.

    Raises:
        SuspectError: if one cannot be loaded.
        UnsafeSuspectError: if loading one would run code from its file.
    """
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix in SUFFIXES and p.is_file())
    found: dict[str, Suspect] = {}
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest not in known or digest in found:
            continue
        arch = known[digest]
        options = LoadOptions(arch=arch if arch is not None and is_architecture(arch) else None)
        found[digest] = load_suspect(path, options=options)
        found[digest].pause()  # one process at a time
    return list(found.values())


def _visible(folder: Path | str) -> list[Path]:
    """Return what lies in a folder, in order; systems hide their own files there (`.DS_Store`, `._model.onnx`)."""
    folder = Path(folder)
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []


def _suffix(path: Path) -> str:
    """Return the end of an encoder's file name, as in `model.pth.tar`; "" if it is no such name."""
    ends = [s for s in SUFFIXES if path.name.lower().endswith(s)]
    return path.name[-len(ends[0]) :] if ends else ""


def _each(files: list[Path]) -> Iterator[tuple[Suspect, str]]:
    for path in files:
        note = path.with_name(path.name.removesuffix(_suffix(path)) + ".txt")
        said = read_bytes(note, SuspectError, "provenance").decode("utf-8", "replace") if note.is_file() else ""
        suspect = load_suspect(path)
        suspect.pause()  # one process at a time
        yield suspect, printable(" ".join(said.split()), 500)
