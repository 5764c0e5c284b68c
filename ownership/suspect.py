"""Loading a suspect: a file in, an encoder out; hash and load the same bytes, run no code that came with it.

The format is told from the content, not from the extension. Read: safetensors, PyTorch state dicts
(`weights_only=True`, never memory-mapped) and ONNX (CPU, no external data, no custom operators).
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from ownership.architectures import ARCHITECTURES, Encoder, is_architecture, known_architectures, make_encoder
from ownership.backbones import as_encoder_state
from ownership.errors import SuspectError, UnsafeSuspectError, printable
from ownership.files import read_bytes, sha256
from ownership.images import EncoderLike
from ownership.onnx_encoder import OnnxEncoder

SUFFIXES = (".safetensors", ".pt", ".pth", ".onnx")

FORMATS = "safetensors, a PyTorch state dict (.pt, .pth) or ONNX"

_ONNX_FIRST_BYTES = bytes(f << 3 | wire for f, wire in ((1, 0), (2, 2), (3, 2), (4, 2), (5, 0), (6, 2), (7, 2), (8, 2)))
"""Tags of the first eight fields of onnx.ModelProto."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Suspect:
    """An encoder loaded from a file."""

    name: str  # the file's name, made printable
    format: str  # safetensors, pytorch, onnx
    sha256: str  # of the bytes that were loaded
    size: int  # bytes
    architecture: str | None  # None for ONNX
    encoder: EncoderLike  # images (n, 3, h, w) float32 in [0, 1] -> representations (n, d)
    answers: str = "representations"  # what it gives out, as declared: name in ANSWER_KINDS
    details: Callable[[], dict[str, Any]] = dict  # called after the asking: what else the report records of it


ANSWER_KINDS: dict[str, tuple[str, ...] | None] = {
    "representations": None,
    "logits": ("partial_rsa", "cka"),
    "posteriors": ("partial_rsa", "cka"),
    "labels": ("cka",),
}
"""What a suspect may be declared to give out -> the statistics that can be computed on it; None for all.

On anything but representations none of them decides: the panel answers with representations, so its scores are no null
for class scores.
"""


def load_suspect(path: Path | str, arch: str | None = None, *, answers: str = "representations") -> Suspect:
    """Loads an encoder from a file.

    Args:
        path: `.safetensors`, `.pt`/`.pth` state dict, or `.onnx`; what it is, is told from its content.
        arch: name in `ARCHITECTURES` for files of bare weights; found out from the weights when not given.
        answers: what the model gives out, name in `ANSWER_KINDS`: a classifier is declared, never guessed.

    Raises:
        SuspectError: if the file cannot be loaded as an encoder, or there is no such kind of answers.
        UnsafeSuspectError: if loading it would run code of its own; nothing ran.
    """
    if answers not in ANSWER_KINDS:
        raise SuspectError(f"unknown kind of answers {answers!r}", f"one of: {', '.join(ANSWER_KINDS)}")
    path = Path(path)
    data = read_bytes(path, SuspectError, "suspect")
    kind = detect_format(data)
    architecture = None
    encoder: EncoderLike
    if kind == "onnx":
        encoder = OnnxEncoder(data)
    else:
        state, stated = _read_safetensors(data) if kind == "safetensors" else _read_pytorch(data)
        architecture = arch or stated or _matching_architecture(state)
        encoder = _fill(architecture, state)
    return Suspect(
        name=printable(path.name),
        format=kind,
        sha256=sha256(data),
        size=len(data),
        architecture=architecture,
        encoder=encoder,
        answers=answers,
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
    out = []
    for path in files:
        note = path.with_suffix(".txt")
        said = read_bytes(note, SuspectError, "provenance").decode("utf-8", "replace") if note.is_file() else ""
        out.append((load_suspect(path), printable(" ".join(said.split()), 500)))
    return out


def detect_format(data: bytes) -> str:
    """Returns "safetensors", "pytorch" or "onnx" from the first bytes of a file.

    Raises:
        SuspectError: if it is none of these.
        UnsafeSuspectError: if it is a bare pickle or TorchScript, a program.
    """
    if data[:4] == b"PK\x03\x04":
        names = _zip_names(data)
        if any(n.endswith("constants.pkl") for n in names):
            raise UnsafeSuspectError(
                "this is TorchScript, a program; refused", "send a state dict, safetensors or ONNX"
            )
        if any(n.endswith("archive_format") or "/models/" in n or n.startswith("models/") for n in names):
            raise UnsafeSuspectError(
                "this is a torch.export archive; refused", "send a state dict, safetensors or ONNX"
            )
        if any(n.endswith("data.pkl") for n in names):
            return "pytorch"
        raise SuspectError("this is a zip archive, but no PyTorch file", f"expected {FORMATS}")
    if len(data) > 9 and data[8:9] == b"{" and struct.unpack("<Q", data[:8])[0] <= len(data) - 8:
        return "safetensors"
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pytorch"
    for start, what in (
        (b"version https://git-lfs", "a Git-LFS pointer, not the model"),
        (b"<!DOCTYPE", "an HTML page, not a model"),
        (b"<html", "an HTML page, not a model"),
        (b"\x93NUMPY", "a NumPy file, not a model"),
    ):
        if data[: len(start)].lower() == start.lower():
            raise SuspectError(f"suspect: this is {what}", f"expected {FORMATS}")
    if data[0] in _ONNX_FIRST_BYTES:
        return "onnx"  # protobuf has no magic number; parsing tells
    raise SuspectError("suspect: unknown format", f"expected {FORMATS}")


def _zip_names(data: bytes) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OSError) as e:
        raise SuspectError("suspect: the archive is damaged", "the copy may have failed; fetch it again") from e
    if sum(i.file_size for i in infos) > 4 * len(data) + 2**20:
        raise SuspectError("suspect: the archive expands to many times its size", "store it without compression")
    names = [i.filename for i in infos]
    if len(set(names)) != len(names):
        raise SuspectError("suspect: the archive has two members of one name", "save the state dict again")
    return names


def _read_safetensors(data: bytes) -> tuple[dict[str, Tensor], str | None]:
    try:
        state = load_safetensors(data)
        header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, RecursionError) as e:
        raise SuspectError(f"suspect: safetensors file is damaged ({printable(e)})", "fetch it again") from e
    stated = header.get("__metadata__", {}).get("architecture")
    return state, stated if isinstance(stated, str) and is_architecture(stated) else None


def _read_pytorch(data: bytes) -> tuple[dict[str, Tensor], None]:
    """A state dict, by the restricted unpickler only; one level of `state_dict` or `model` is unwrapped."""
    try:
        with warnings.catch_warnings():  # torch comments on pickle protocols and layouts; the checks below decide
            warnings.simplefilter("ignore")
            value: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True, mmap=False)
    except pickle.UnpicklingError as e:
        raise UnsafeSuspectError(
            f"refused: loading this file would run code ({_culprit(str(e))}); nothing ran",
            "ask for a state dict (torch.save(model.state_dict(), ...)) or safetensors",
        ) from e
    except Exception as e:  # the unpickler raises what the bytes make it raise
        raise SuspectError("suspect: the PyTorch file is damaged", "the copy may have failed; fetch it again") from e
    if isinstance(value, dict):
        for wrapper in ("state_dict", "model"):
            if isinstance(value.get(wrapper), dict):
                value = value[wrapper]
    if not isinstance(value, dict) or not value:
        raise SuspectError(
            f"suspect: expected a mapping of name to tensor, got {type(value).__name__}", "save model.state_dict()"
        )
    for name, tensor in value.items():
        if not isinstance(name, str) or type(tensor) not in (Tensor, torch.nn.Parameter):
            raise SuspectError(f"suspect: entry {printable(name)} is no named tensor", "save model.state_dict()")
        if (
            tensor.layout != torch.strided
            or tensor.is_meta
            or tensor.is_quantized
            or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size()
        ):
            raise SuspectError(f"suspect: tensor {printable(name)} has an unsupported layout", "save it contiguous")
    return value, None


def _culprit(message: str) -> str:
    """The global that the restricted unpickler refused, out of its long message."""
    for marker in ("GLOBAL ", "Unsupported global: GLOBAL "):
        if marker in message:
            return printable(message.split(marker, 1)[1].split()[0], 60)
    return "a pickled object that is no tensor"


def _matching_architecture(state: dict[str, Tensor]) -> str:
    """The one architecture with these names and shapes."""
    shapes = {name: tuple(t.shape) for name, t in state.items()}
    for name, make in ARCHITECTURES.items():
        with torch.device("meta"):
            expected = {k: tuple(v.shape) for k, v in make().state_dict().items()}
        if expected == shapes:
            return name
    raise SuspectError(
        f"suspect: {len(state)} tensors fit no known architecture (first: {printable(next(iter(state)))})",
        f"name it with --arch ({known_architectures()}), or export the model to ONNX",
    )


def _fill(architecture: str, state: dict[str, Tensor]) -> Encoder:
    if not is_architecture(architecture):
        raise SuspectError(f"unknown architecture {printable(architecture)!r}", f"one of: {known_architectures()}")
    try:
        with torch.device("meta"):  # the name may come from a small file, and stand for a network larger than memory
            expected = make_encoder(architecture).state_dict()
    except Exception as e:  # each of a thousand models has its own way of failing
        raise SuspectError(f"{architecture} cannot be made ({printable(e, 120)})", "export the model to ONNX") from e
    if architecture not in ARCHITECTURES:
        state = as_encoder_state(state, expected)
    missing = [k for k in expected if k not in state]
    unexpected = [k for k in state if k not in expected]
    misshaped = [k for k in expected if k in state and state[k].shape != expected[k].shape]
    if missing or unexpected or misshaped:
        first = (missing or misshaped or unexpected)[0]
        raise SuspectError(
            f"suspect does not fit {architecture}: {len(missing)} tensors missing, {len(unexpected)} unexpected, "
            f"{len(misshaped)} of another shape; first: {printable(first)}",
            f"name the right one with --arch ({known_architectures()})",
        )
    encoder = make_encoder(architecture)
    given = {k: v for k, v in state.items() if not v.is_meta}  # a library's own file has no mean and std: ours stay
    encoder.load_state_dict({**encoder.state_dict(), **given})
    return encoder.eval()
