"""Vet a `torch.export` archive without running any of it, and write it anew from the vetted parts.

`torch.export.load` unpickles, evaluates expressions, writes Python from names, loads native code and compiles guards
from the archive (tests/hostile/ shows attacks by each). The sandbox contains what vetting may miss.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ownership.errors import SuspectError, UnsafeSuspectError
from ownership.io.text import printable

_MEMBERS = re.compile(
    r"data/(weights|constants)/(weight|tensor)_\d+|data/(weights|constants)/model_(weights|constants)_config\.json"
    r"|models/model\.json|data/sample_inputs/model\.pt|archive_format|archive_version|byteorder"
    r"|\.data/(version|serialization_id)"
)
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+\.\w+|_operator\.(getitem|add|sub|mul|floordiv|mod|eq|ne|lt|le|gt|ge)|torch\.sym_\w+"
)
_WRAPPERS = re.compile(r"torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)")
"""Operators that call a subgraph, as `with torch.no_grad():` and `torch.autocast` are written."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,500}")
_STORED = re.compile(r'[^\s"\\\x00-\x1f]{1,500}')
"""Names of parameters and buffers, which torch writes between double quotes."""
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
        for part in _objects(model):
            _check_part(part)
            if isinstance(part.get("metadata"), dict):
                part["metadata"] = {}  # stack traces and module names, which torch parses
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, zipfile.BadZipFile, OSError) as e:
        raise SuspectError(
            "suspect: the torch.export archive is damaged", "the copy may have failed; fetch it again"
        ) from e
    model["guards_code"] = []  # torch 2.14 compiles these as Python; the adapter checks shapes itself
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
    """Check one JSON object. The nodes of subgraphs are objects like any other."""
    if "expr_str" in part and not is_arithmetic(part["expr_str"]):
        raise _refused(f"symbolic expression {printable(part['expr_str'], 60)}")
    target = part.get("target")
    if isinstance(target, str) and "inputs" in part:
        _check_call(target, part["inputs"])
    for kind in ("as_custom_obj", "as_opaque"):
        if part.get(kind) is not None:
            raise _refused(f"{kind.removeprefix('as_')} objects")
    subgraph = part.get("as_graph")
    if subgraph is not None and not re.fullmatch(r"submod_\d{1,4}", subgraph["name"]):  # an attribute of the module
        raise _refused(f"subgraph {printable(subgraph['name'], 60)}")
    for name in _names(part):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _refused(f"the name {printable(name, 60)}")
    for key in ("parameter_name", "buffer_name", "tensor_constant_name"):
        if key in part and not _STORED.fullmatch(part[key]):
            raise _refused(f"the name {printable(part[key], 60)}")


def _check_call(target: str, inputs: list[dict[str, Any]]) -> None:
    """Refuse operators that are not on the list, and subgraphs that are no argument of a wrapper."""
    subgraphs = [given["arg"]["as_graph"] for given in inputs if "as_graph" in given["arg"]]
    if _WRAPPERS.fullmatch(target):
        if len(subgraphs) != 1 or any(given["name"] for given in inputs):
            raise _refused(f"{target} of other arguments than torch writes")
    elif subgraphs or not _OPERATORS.fullmatch(target) or _FILE_OPERATORS.match(target):
        raise _refused(f"operator {printable(target, 60)} is not allowed")


def _names(part: dict[str, Any]) -> Iterator[object]:
    """Yield the names in one JSON object, from which torch writes the Python of a graph: nodes, inputs, arguments."""
    yield from (part[key] for key in ("name", "as_name") if part.get(key))
    yield from part.get("forward_arg_names") or ()
    if isinstance(part.get("in_spec"), str):
        for spec in _objects(json.loads(part["in_spec"])):
            if spec["type"] == "builtins.dict":
                yield from json.loads(spec["context"])


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
