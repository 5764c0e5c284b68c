"""Open `torch.export` archives and TorchScript as encoders. Both can contain code and need the sandbox.

`torch.export.load` unpickles, evaluates expressions, loads native code and compiles guards from the archive
(tests/hostile/ shows attacks by each). The archive is therefore vetted without running any of it, and rewritten from
the vetted parts. The sandbox contains what vetting may miss.
"""

from __future__ import annotations

import ast
import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ownership.errors import SuspectError, UnsafeSuspectError
from ownership.io.text import printable
from ownership.suspects.formats.adapter import AdaptedEncoder

_MEMBERS = re.compile(
    r"data/(weights|constants)/(weight|tensor)_\d+|data/(weights|constants)/model_(weights|constants)_config\.json"
    r"|models/model\.json|data/sample_inputs/model\.pt|archive_format|archive_version|byteorder"
    r"|\.data/(version|serialization_id)"
)
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+\.\w+|_operator\.(getitem|add|sub|mul|floordiv|mod|eq|ne|lt|le|gt|ge)|torch\.sym_\w+"
)
_FILE_OPERATORS = re.compile(r"torch\.ops\.aten\.(from_file|save|load)")
_FUNCTIONS = re.compile(
    "Symbol|Integer|Float|Rational|Add|Mul|Pow|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv|Max|Min|Where|Eq|Ne|Lt|Le|Gt|Ge"
    "|Not|And|Or|ToFloat|TruncToInt|IntTrueDiv|PowByNatural"
)
_SYMBOL = re.compile(r"[a-z]{1,2}\d{1,6}")
_KEYWORDS = {"integer", "positive", "nonnegative", "zero", "real", "precision"}
_OPERATIONS = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.USub)


def _refused(what: str) -> UnsafeSuspectError:
    return UnsafeSuspectError(f"pt2 refused: {what}; nothing ran", "ask for safetensors or ONNX")


def open_exported(path: Path, pooling: str = "cls") -> AdaptedEncoder:
    """Return the encoder in a `torch.export` archive, after vetting.

    Raises:
        UnsafeSuspectError: if the archive contains anything but a graph of allowed operators and raw tensors.
        SuspectError: if it is damaged, or not an encoder.
    """
    vetted = vet_archive(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.load(vetted)
            module: Callable[..., Any] = program.module(check_guards=False)
        except Exception as e:  # each version of torch has its own
            raise SuspectError(
                f"suspect: torch.export cannot read the archive ({printable(e)})", "export it with this torch"
            ) from e
    names = program.graph_signature.user_inputs
    images = [n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    if len(images) != 1 or not isinstance(images[0], Tensor) or images[0].ndim != 4:
        raise SuspectError(
            f"suspect: the exported program takes {len(images)} inputs, expected images (n, 3, h, w)",
            "export the image encoder alone",
        )
    n, *rest = (d if isinstance(d, int) else 0 for d in images[0].shape)
    channels_last = rest[2] == 3 and rest[0] != 3
    size = rest[:2] if channels_last else rest[1:]
    return AdaptedEncoder(
        _single(module), batch=n or None, size=(size[0], size[1]), channels_last=channels_last, pooling=pooling
    )


def open_torchscript(path: Path, pooling: str = "cls") -> AdaptedEncoder:
    """Return the encoder in a TorchScript file. Its code runs when it is loaded and called.

    Raises:
        SuspectError: if it cannot be loaded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except Exception as e:
            raise SuspectError(f"suspect: TorchScript cannot be loaded ({printable(e)})", "export it to ONNX") from e
    return AdaptedEncoder(_single(module), pooling=pooling)


def _single(module: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """Return a function that calls the module and returns its only tensor, or the first of several."""

    def run(images: Tensor) -> Tensor:
        answer = module(images)
        if isinstance(answer, dict):
            answer = next(iter(answer.values()), None)
        if isinstance(answer, (tuple, list)) and answer:
            answer = answer[0]
        if not isinstance(answer, Tensor):
            raise SuspectError(
                f"suspect: answers {type(answer).__name__}, expected a tensor (n, d)", "export the encoder"
            )
        return answer

    return run


def vet_archive(path: Path) -> io.BytesIO:
    """Return a new archive of the vetted members of a `torch.export` archive, without running any of it.

    Raises:
        UnsafeSuspectError: if a member, an operator or an expression is not allowed.
        SuspectError: if the archive is damaged.
    """
    try:
        members = _members(path)
        configurations = {name: _parse(data) for name, data in members.items() if name.endswith("_config.json")}
        for name, value in configurations.items():
            _check_payloads(name, value, members)
        model = _parse(members["models/model.json"])
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, zipfile.BadZipFile, OSError) as e:
        raise SuspectError(
            "suspect: the torch.export archive is damaged", "the copy may have failed; fetch it again"
        ) from e
    model["guards_code"] = []  # torch 2.14 compiles these as Python; the adapter checks shapes itself
    for part in _objects(model):
        _check_part(part)
        if isinstance(part.get("metadata"), dict):
            part["metadata"] = {}  # stack traces and module names, which torch parses
    members["models/model.json"] = json.dumps(model).encode()
    if "data/sample_inputs/model.pt" in members:
        try:  # torch tries this, and falls back to the unrestricted unpickler
            torch.load(io.BytesIO(members["data/sample_inputs/model.pt"]), weights_only=True, map_location="cpu")
        except Exception as e:
            raise _refused("the sample inputs are pickled code") from e
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"model/{name}", data)
    out.seek(0)
    return out


def _members(path: Path) -> dict[str, bytes]:
    """Return the allowed members by name, relative to the only root folder."""
    out = {}
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if len(infos) > 20_000 or any(i.compress_type != zipfile.ZIP_STORED or i.flag_bits & 1 for i in infos):
            raise _refused("compressed, encrypted or too many members")
        roots = {i.filename.split("/", 1)[0] for i in infos}
        if len(roots) != 1:
            raise _refused("more than one root folder")
        root = roots.pop()
        for info in infos:
            name = info.filename[len(root) + 1 :]
            if name.startswith("data/aotinductor/"):
                raise _refused("it contains native code")
            if name.startswith("extra/"):
                continue
            if not _MEMBERS.fullmatch(name):
                raise _refused(f"unexpected member {printable(name)}")
            out[name] = archive.read(info)
    return out


def _parse(data: bytes) -> dict[str, Any]:
    """Parse a JSON object; refuse duplicate keys, of which two parsers could read different ones."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({k for k, _ in pairs}) != len(pairs):
            raise _refused("a JSON object has one key twice")
        return dict(pairs)

    value = json.loads(data, object_pairs_hook=once)
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _check_payloads(name: str, value: dict[str, Any], members: dict[str, bytes]) -> None:
    """Refuse tensors that are pickled, or whose raw bytes are missing."""
    folder = name.rsplit("/", 1)[0]
    for key, about in value["config"].items():
        if about.get("use_pickle") is not False or not isinstance(about.get("tensor_meta"), dict):
            raise _refused(f"{printable(key)} is pickled, not raw tensor data")
        payload = about["path_name"]
        if not isinstance(payload, str) or not re.fullmatch(r"(weight|tensor)_\d+", payload):
            raise _refused(f"payload name {printable(payload)}")
        if f"{folder}/{payload}" not in members:
            raise SuspectError(f"suspect: {printable(key)} is missing from the archive", "fetch it again")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every nested JSON object, without recursion."""
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            yield part
            stack += part.values()
        elif isinstance(part, list):
            stack += part


def _check_part(part: dict[str, Any]) -> None:
    if "expr_str" in part and not is_arithmetic(part["expr_str"]):
        raise _refused(f"symbolic expression {printable(part['expr_str'], 60)}")
    target = part.get("target")
    called = target if isinstance(target, str) and "inputs" in part else None
    if called is not None and (not _OPERATORS.fullmatch(called) or _FILE_OPERATORS.match(called)):
        raise _refused(f"operator {printable(called, 60)} is not allowed")
    for kind in ("as_custom_obj", "as_opaque", "as_graph"):
        if part.get(kind) is not None:
            raise _refused(f"{kind.removeprefix('as_')} objects")


def is_arithmetic(expression: object) -> bool:
    """Return whether a symbolic expression is only arithmetic over named sizes.

    >>> is_arithmetic("Mul(Integer(197), Symbol('s77', positive=True, integer=True))")
    True
    >>> is_arithmetic("__import__('os').system('true')")
    False
    """
    if not isinstance(expression, str) or len(expression) > 2000:
        return False
    try:
        tree = ast.parse(expression, mode="eval").body
        return _arithmetic(tree)
    except (SyntaxError, RecursionError, MemoryError, ValueError):
        return False


def _arithmetic(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        named = all(k.arg in _KEYWORDS and isinstance(k.value, ast.Constant) for k in node.keywords)
        known = isinstance(node.func, ast.Name) and _FUNCTIONS.fullmatch(node.func.id) is not None
        return known and named and all(map(_arithmetic, node.args))
    if isinstance(node, ast.Constant):
        text = isinstance(node.value, str) and _SYMBOL.fullmatch(node.value) is not None
        return text or isinstance(node.value, (int, float))
    if isinstance(node, ast.Name):
        return _SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, _OPERATIONS) and _arithmetic(node.left) and _arithmetic(node.right)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, _OPERATIONS) and _arithmetic(node.operand)
    return False
