"""Suspects: a hostile file in, an encoder in a cage out. Our own models: a file in, an encoder in this process.

The format is told from the content, not from the extension; of a suspect, the bytes that are hashed are those that are
loaded. What each format may hold is in `loading`, what the cage stops in `sandbox`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ownership.encoders.images import EncoderLike
from ownership.errors import SuspectError
from ownership.io.files import read_bytes
from ownership.io.text import printable
from ownership.suspects.formats.adapter import AdaptedEncoder, resized
from ownership.suspects.formats.open import LoadOptions, open_model
from ownership.suspects.preprocessing import NONE, Preprocess
from ownership.suspects.sandbox.encoder import Limits, SandboxedEncoder

SUFFIXES = (".safetensors", ".pt", ".pth", ".onnx", ".pt2")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Suspect:
    """An encoder, and what is recorded of where it came from."""

    name: str  # the file's name, made printable
    format: str  # safetensors, pytorch, onnx, torch.export, torchscript
    sha256: str  # of the bytes that were loaded
    size: int  # bytes
    architecture: str | None  # of bare weights
    encoder: EncoderLike  # images (n, 3, h, w) float32 in [0, 1] -> representations (n, d)
    output_kind: str = "representations"  # what it gives out, as declared: name in OUTPUT_KINDS
    preprocess: Preprocess = NONE  # done to images before it sees them
    files: dict[str, str] = field(default_factory=dict)  # name -> SHA-256, where it is more than one file
    details: Callable[[], dict[str, Any]] = dict  # called after the asking: what else the report records of it

    @property
    def layers(self) -> dict[str, str] | None:
        """Layers of the cage that it runs in -> what each does here; None for a model in our own process."""
        return self.encoder.layers if isinstance(self.encoder, SandboxedEncoder) else None

    def resizes(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Returns the size that images of this shape `(n, c, h, w)` are resized to for it, or None."""
        if isinstance(self.encoder, SandboxedEncoder):
            return self.encoder.resizes(shape)
        return resized(self.encoder.size, shape) if isinstance(self.encoder, AdaptedEncoder) else None

    def close(self) -> None:
        """Ends its process, if it has one; the next question starts it again."""
        if isinstance(self.encoder, SandboxedEncoder):
            self.encoder.close()

    def discard(self) -> None:
        """Ends its process and removes its private copy, if it has them."""
        if isinstance(self.encoder, SandboxedEncoder):
            self.encoder.discard()


OUTPUT_KINDS: dict[str, tuple[str, ...] | None] = {
    "representations": None,
    "logits": ("partial_rsa", "cka"),
    "posteriors": ("partial_rsa", "cka"),
    "labels": ("cka",),
}
"""What a suspect may be declared to give out -> the statistics that can be computed on it; None for all.

On anything but representations none of them decides: the panel answers with representations, so its scores are no null
for class scores.
"""


def check_output_kind(output_kind: str) -> None:
    """Raises SuspectError if there is no such kind of answers."""
    if output_kind not in OUTPUT_KINDS:
        raise SuspectError(f"unknown kind of answers {output_kind!r}", f"one of: {', '.join(OUTPUT_KINDS)}")


def load_suspect(
    path: Path | str,
    arch: str | None = None,
    *,
    output_kind: str = "representations",
    options: LoadOptions | None = None,
    limits: Limits | None = None,
    preprocess: Preprocess = NONE,
) -> Suspect:
    """Loads an encoder from a file that an adversary may have written: in a process of its own that is locked in.

    Args:
        path: safetensors, PyTorch state dict, `torch.export`, ONNX (what it is, is told from its content), or a folder
            of `config.json` and weights.
        arch: architecture of bare weights; found out from the weights when not given.
        output_kind: what the model gives out, name in `OUTPUT_KINDS`: a classifier is declared, never guessed.
        options: what else cannot be told from the file, or has to be allowed.
        limits: what it may take.
        preprocess: what it expects to be done to images first, beyond what its file says.

    Raises:
        SuspectError: if the file cannot be loaded as an encoder, or there is no such kind of answers.
        UnsafeSuspectError: if loading it would run code that is not asked for; nothing ran.
        SandboxError: if it holds code and a layer of the cage is missing here.
    """
    check_output_kind(output_kind)
    path = Path(path)
    encoder = SandboxedEncoder(path, options or LoadOptions(arch=arch), limits)
    copied = encoder.copied
    return Suspect(
        name=printable(path.name),
        format=encoder.format,
        sha256=copied.sha256,
        size=copied.size,
        architecture=encoder.architecture,
        encoder=encoder,
        output_kind=output_kind,
        preprocess=preprocess,
        files={printable(n): d for n, d in copied.files.items()} if len(copied.files) > 1 else {},
    )


def load_encoder(path: Path | str, arch: str | None = None) -> Suspect:
    """Loads an encoder that is one's own, in this process, as a module that can be trained on.

    Weights and ONNX only, by the same restricted loaders; nothing that holds code.

    Args:
        path: as in `load_suspect`.
        arch: architecture of bare weights; found out from the weights when not given.

    Raises:
        SuspectError: if the file cannot be loaded as an encoder.
    """
    path = Path(path)
    data = read_bytes(path, SuspectError, "encoder")
    opened = open_model(path, LoadOptions(arch=arch), missing_layers=("a process of its own",))
    return Suspect(
        name=printable(path.name),
        format=opened.format,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        architecture=opened.architecture,
        encoder=opened.encoder,
    )


def load_folder(folder: Path) -> list[tuple[Suspect, str]]:
    """Loads every encoder of a folder, each with the text of the `.txt` file of its name: where it comes from.

    Raises:
        SuspectError: if there are none, or one cannot be loaded.
        UnsafeSuspectError: if loading one would run code of its own.
    """
    files = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES) if folder.is_dir() else []
    if not files:
        raise SuspectError(f"{printable(folder, 300)} holds no encoders", f"expected {', '.join(SUFFIXES)}")
    return list(_each(files))


def _each(files: list[Path]) -> Iterator[tuple[Suspect, str]]:
    for path in files:
        note = path.with_suffix(".txt")
        said = read_bytes(note, SuspectError, "provenance").decode("utf-8", "replace") if note.is_file() else ""
        suspect = load_suspect(path)
        suspect.close()  # one process at a time
        yield suspect, printable(" ".join(said.split()), 500)
