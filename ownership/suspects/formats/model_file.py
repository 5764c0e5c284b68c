"""Open a model's file as an encoder. The format is detected from the content, not from the extension.

Bare weights (safetensors, PyTorch state dicts) and ONNX are read by restricted loaders. A `torch.export` archive is
vetted and rewritten first; TorchScript is a program. These two can contain code and are opened in a complete sandbox
only: the caller of `open_model` states which isolation layers are missing.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ownership.encoders.architectures import is_architecture
from ownership.encoders.images import EncoderLike
from ownership.errors import SandboxError, SuspectError, UnsafeSuspectError
from ownership.io.files import read_json
from ownership.io.text import printable
from ownership.suspects.formats.adapter import POOLINGS, AdaptedEncoder
from ownership.suspects.formats.checkpoint import MOST_MAPPINGS, mappings
from ownership.suspects.formats.model_config import ModelConfig, read_model_config
from ownership.suspects.formats.onnx_file import ExternalData as ExternalData
from ownership.suspects.formats.onnx_file import open_onnx
from ownership.suspects.formats.state_dict import Named, Weights, fixed_size, load_weights
from ownership.suspects.formats.torch_export import open_exported, open_torchscript
from ownership.suspects.formats.unpickling import read_checkpoint

FORMATS = "safetensors, a PyTorch state dict (.pt, .pth), torch.export (.pt2) or ONNX"

MOST_TENSORS, MOST_DIMENSIONS, LONGEST_SIDE = 50_000, 8, 2**31

_ONNX_FIRST_BYTES = bytes(f << 3 | wire for f, wire in ((1, 0), (2, 2), (3, 2), (4, 2), (5, 0), (6, 2), (7, 2), (8, 2)))
"""Tags of the first eight fields of onnx.ModelProto."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Properties of a suspect that its file does not state, and permissions."""

    arch: str | None = None  # architecture of bare weights; None to infer it
    entry: str | None = None  # entry of a checkpoint that is the encoder; None for every one that fits
    output: str | None = None  # name or position of the output that is the representation; None if only one can be
    pooling: str = "auto"  # pooling of tokens and maps, one of POOLINGS
    external_data: bool = False  # whether an ONNX model may consist of several files
    allow_torchscript: bool = False  # whether to run TorchScript, a program, in a complete sandbox

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise SuspectError(f"unknown pooling {printable(self.pooling)!r}", f"one of: {', '.join(POOLINGS)}")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class LoadedModel:
    """A model that was loaded from a file."""

    format: str  # safetensors, pytorch, onnx, torch.export, torchscript
    architecture: str | None  # of bare weights
    encoder: EncoderLike
    weights: Weights | None = None  # of bare weights
    fixed: tuple[int, int] | None = None  # height and width that bare weights take, or that a file beside them states

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of its input, 0 for any; None if the model accepts any size."""
        return self.encoder.size if isinstance(self.encoder, AdaptedEncoder) else self.fixed

    @property
    def choices(self) -> dict[str, str]:
        """What was chosen where the file offers a choice, in words."""
        return self.encoder.choices if isinstance(self.encoder, AdaptedEncoder) else {}


def open_model(
    path: Path, options: LoadOptions, *, missing_layers: Sequence[str], config: Path | None = None
) -> LoadedModel:
    """Load the model in a file.

    Args:
        path: the file.
        options: how to load it.
        missing_layers: isolation layers that this process lacks; formats that can contain code need all of them.
        config: `config.json` of a model's folder, with architecture, mean and std as timm writes them.

    Raises:
        SuspectError: if the file cannot be loaded as an encoder.
        UnsafeSuspectError: if loading would run code that the options do not allow.
        SandboxError: if the file contains code and an isolation layer is missing.
    """
    kind = "safetensors" if path.name.endswith(".index.json") else detect_format(path)
    if kind == "torchscript" and not options.allow_torchscript:
        raise UnsafeSuspectError(
            "this is TorchScript, a program; refused", "--allow-torchscript runs it in the sandbox; or send ONNX"
        )
    if kind in ("torchscript", "torch.export") and missing_layers:
        raise SandboxError(
            f"this is {kind}, which contains code, and the sandbox lacks: {', '.join(missing_layers)}",
            "turnmark doctor shows the isolation layers; or ask for safetensors or ONNX",
        )
    if kind == "onnx":
        encoder: EncoderLike = open_onnx(
            path, external_data=options.external_data, output=options.output, pooling=options.pooling
        )
        return LoadedModel(format=kind, architecture=None, encoder=encoder)
    if kind == "torch.export":
        return LoadedModel(format=kind, architecture=None, encoder=open_exported(path, options.output, options.pooling))
    if kind == "torchscript":
        return LoadedModel(
            format=kind, architecture=None, encoder=open_torchscript(path, options.output, options.pooling)
        )
    named, stated = (_read_pytorch(path), None) if kind == "pytorch" else _read_safetensors(path)
    for path_in_file, state in named:
        if not path_in_file.startswith("optim"):  # of an optimizer nothing is used
            _check_state(state)
    beside = ModelConfig() if config is None else read_model_config(config)
    weights = load_weights(named, options.arch or stated, beside, options.entry)
    return LoadedModel(
        format=kind,
        architecture=weights.architecture,
        encoder=weights.encoder,
        weights=weights,
        fixed=fixed_size(weights.encoder.body) or beside.size,
    )


def detect_format(path: Path) -> str:
    """Return the format of a file: "safetensors", "pytorch", "torch.export", "torchscript" or "onnx".

    Raises:
        SuspectError: if it is none of these.
    """
    with path.open("rb") as f:
        first = f.read(64)
    size = path.stat().st_size
    if first[:4] == b"PK\x03\x04":
        names = zip_names(path)
        if any(n.endswith("constants.pkl") for n in names):
            return "torchscript"
        if any(n.endswith("archive_format") or "/models/" in n or n.startswith("models/") for n in names):
            return "torch.export"
        if any(n.endswith("data.pkl") for n in names):
            return "pytorch"
        raise SuspectError("suspect: this is a zip archive, but no PyTorch file", f"expected {FORMATS}")
    if len(first) > 9 and first[8:9] == b"{" and (length := int.from_bytes(first[:8], "little")) < 2**32:
        if length > size - 8:
            raise SuspectError("suspect: a damaged safetensors file: its header is not whole", "copy it again")
        return "safetensors"
    if first[:1] == b"\x80" and first[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pytorch"
    for start, what in (
        (b"version https://git-lfs", "a Git-LFS pointer, not the model"),
        (b"<!doctype", "an HTML page, not a model"),
        (b"<html", "an HTML page, not a model"),
        (b"\x93numpy", "a NumPy file of numbers, not a model"),
    ):
        if first[: len(start)].lower() == start:
            raise SuspectError(f"suspect: this is {what}", f"expected {FORMATS}")
    if first[4:8] == b"ORTM":
        raise SuspectError("suspect: this is onnxruntime's compiled form, not ONNX", "export plain ONNX")
    if first and first[0] in _ONNX_FIRST_BYTES:
        return "onnx"  # protobuf has no magic number; parsing tells
    raise SuspectError("suspect: unknown format", f"expected {FORMATS}")


def zip_names(path: Path) -> list[str]:
    """Return the names of the members of a zip archive.

    Raises:
        SuspectError: if it is damaged, expands to many times its size, or has two members with one name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except Exception as e:  # zipfile lets all kinds of errors out on damaged archives
        raise SuspectError("suspect: the archive is damaged", "the copy may have failed; fetch it again") from e
    total = sum(i.file_size for i in infos)
    if total > 4 * path.stat().st_size + 2**20:
        raise SuspectError(
            f"suspect: the archive expands to many times its size ({total / 2**20:.0f} MiB)",
            "store it without compression",
        )
    names = [i.filename for i in infos]
    if len(set(names)) != len(names):
        raise SuspectError("suspect: the archive has two members of one name", "save the state dict again")
    return names


def _read_shards(index: Path) -> dict[str, Tensor]:
    """Return the tensors of a model in several safetensors files, each from the file that the index names for it."""
    places = read_json(index, SuspectError, "suspect").get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(x, str) and x == Path(x).name for x in places.values()):
        raise SuspectError(f"suspect: {index.name} names no files", "fetch it again")
    state: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if not (index.parent / name).is_file():
            raise SuspectError(f"suspect: {printable(name, 80)} is missing beside {index.name}", "fetch it as well")
        ((_, part),), _ = _read_safetensors(index.parent / name)
        state |= {k: v for k, v in part.items() if places.get(k) == name}
    if len(state) != len(places):
        raise SuspectError(f"suspect: {len(places) - len(state)} tensors of {index.name} are missing", "fetch it again")
    return state


def _read_safetensors(path: Path) -> tuple[Named, str | None]:
    if path.name.endswith(".index.json"):
        return [("", _read_shards(path))], None
    try:
        with safe_open(path, framework="pt", device="cpu") as f:
            names, metadata = list(f.keys()), f.metadata() or {}
            if len(names) > MOST_TENSORS:
                raise SuspectError(f"suspect: {len(names)} tensors, the limit is {MOST_TENSORS}", "not an encoder?")
            for name in names:
                _check_shape(name, f.get_slice(name).get_shape())
            state = {name: f.get_tensor(name) for name in names}
    except SuspectError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as e:
        raise SuspectError(f"suspect: safetensors file is damaged ({printable(e)})", "fetch it again") from e
    stated = metadata.get("architecture")
    return [("", state)], stated if isinstance(stated, str) and is_architecture(stated) else None


def _read_pytorch(path: Path) -> Named:
    """Return the mappings of named tensors in a checkpoint."""
    value = read_checkpoint(path)
    if not isinstance(value, dict) or not value:
        raise SuspectError(
            f"suspect: expected a mapping of name to tensor, got {type(value).__name__}", "save model.state_dict()"
        )
    found = list(mappings(value))
    if len(found) > MOST_MAPPINGS:
        raise SuspectError(f"suspect: more than {MOST_MAPPINGS} mappings of tensors", "save model.state_dict()")
    if not found:
        first = printable(next(dict.__iter__(value)), 80)
        raise SuspectError(f"suspect: no named tensor in it (first entry: {first})", "save model.state_dict()")
    return found


def _check_shape(name: str, shape: Sequence[int]) -> None:
    if len(shape) > MOST_DIMENSIONS or any(side >= LONGEST_SIDE for side in shape):
        raise SuspectError(
            f"suspect: tensor {printable(name)} has a shape too large, {printable(list(shape))}", "not an encoder?"
        )


def _check_state(state: dict[str, Tensor]) -> None:
    """Refuse tensors that are not finite numbers in a plain strided layout."""
    if len(state) > MOST_TENSORS:
        raise SuspectError(f"suspect: {len(state)} tensors, the limit is {MOST_TENSORS}", "not an encoder?")
    for name, tensor in state.items():
        _check_shape(name, tensor.shape)
        if (
            tensor.layout != torch.strided
            or tensor.is_meta
            or tensor.is_quantized
            or tensor.is_nested
            or tensor.is_complex()
            or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size()
        ):
            raise SuspectError(f"suspect: tensor {printable(name)} has an unsupported layout", "save it contiguous")
        bad = 0
        if tensor.is_floating_point():
            finite = torch.isfinite(tensor if tensor.element_size() > 1 else tensor.float())
            bad = int(tensor.numel() - finite.sum())
        if bad:
            raise SuspectError(
                f"suspect: tensor {printable(name)} has {bad} values that are not finite", "the weights are damaged"
            )
