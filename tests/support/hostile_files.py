"""Hostile and broken suspects, made on the spot: every row of the table in docs/security.md that is about a file.

Nothing here is a stored binary. A payload, where there is one, touches a marker file.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from support.encoders import SIDE, encoder
from torch import nn


class Payload:
    """A pickle that writes a file when loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (open, (str(self.marker), "w"))


class Call:
    """A pickle that calls something when loaded."""

    def __init__(self, what: Callable[..., object], *arguments: object) -> None:
        self.what, self.arguments = what, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (self.what, self.arguments)


def pt(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def archive(compression: int = 0, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return buffer.getvalue()


def rewritten(data: bytes, change: Callable[[str, bytes], list[tuple[str, bytes]]]) -> bytes:
    """An archive with every member replaced by what `change(name, content)` says."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for info in old.infolist():
            for name, content in change(info.filename, old.read(info)):
                new.writestr(name, content)
    return buffer.getvalue()


STATE = encoder(3).state_dict()


def hash_bomb() -> bytes:
    """A dictionary key of nested pairs, each twice the last: 2^60 steps to hash."""
    key: Any = (0,)
    for _ in range(60):
        key = (key, key)
    # built by hand: Python would hash the key while the dictionary is made
    body = b"\x80\x02}" + pickle.dumps(key, protocol=2)[2:-1] + b"K\x01s."
    return rewritten(pt(STATE), lambda name, data: [(name, body if name.endswith("data.pkl") else data)])


def short_record() -> bytes:
    """A tensor that declares four times the bytes that its record has."""
    return rewritten(
        pt({"w": torch.zeros(64)}), lambda name, data: [(name, data[:16] if name.endswith("data/0") else data)]
    )


def missing_record() -> bytes:
    return rewritten(pt({"w": torch.zeros(64)}), lambda name, data: [] if name.endswith("data/0") else [(name, data)])


def twice() -> bytes:
    """Two members of one name."""
    buffer = io.BytesIO(pt(STATE))
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as out:
        warnings.simplefilter("ignore")
        out.writestr("archive/data.pkl", b"x")
        out.writestr("archive/data.pkl", b"y")
    return buffer.getvalue()


def header(value: object, data: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@cache
def pt2(model: nn.Module | None = None) -> bytes:
    """A good `torch.export` archive."""
    net = encoder(3) if model is None else model.eval()
    shapes = ({0: torch.export.Dim("n", min=1, max=4096)},)
    program = torch.export.export(net, (torch.rand(2, 3, SIDE, SIDE),), dynamic_shapes=shapes)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def pt2_with(**changes: Callable[[bytes], bytes]) -> bytes:
    """A good archive with members changed, named by how they end."""

    def change(name: str, data: bytes) -> list[tuple[str, bytes]]:
        for ending, new in changes.items():
            if name.endswith(ending):
                return [(name, new(data))]
        return [(name, data)]

    return rewritten(pt2(), change)


def pt2_pickled_weights(marker: Path) -> bytes:
    def as_pickle(data: bytes) -> bytes:
        value = json.loads(data)
        for about in value["config"].values():
            about["use_pickle"] = True
        return json.dumps(value).encode()

    evil = pickle.dumps(Payload(marker))
    changed = pt2_with(**{"model_weights_config.json": as_pickle})
    return rewritten(changed, lambda n, d: [(n, pt({"w": Payload(marker)}) if "/weights/weight_" in n else d or evil)])


def pt2_sample_inputs(marker: Path) -> bytes:
    return pt2_with(**{"sample_inputs/model.pt": lambda _: pt(Payload(marker))})


def pt2_expression(marker: Path) -> bytes:
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"

    def inject(data: bytes) -> bytes:
        value = json.loads(data)
        stack = [value]
        while stack:
            part = stack.pop()
            if isinstance(part, dict):
                if "expr_str" in part:
                    part["expr_str"] = code
                stack += part.values()
            elif isinstance(part, list):
                stack += part
        return json.dumps(value).encode()

    return pt2_with(**{"models/model.json": inject})


def pt2_guard(marker: Path) -> bytes:
    code = f"__import__('pathlib').Path({str(marker)!r}).touch() is None"
    return pt2_with(
        **{"models/model.json": lambda data: json.dumps({**json.loads(data), "guards_code": [code]}).encode()}
    )


def pt2_argument(marker: Path) -> bytes:
    """A name of an argument that ends the function which torch writes, and begins another."""
    name = f"x): return 0\nopen({str(marker)!r}, 'w')\ndef g(self):\n    '''#"

    def inject(data: bytes) -> bytes:
        value = json.loads(data)
        value["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = [name]
        return json.dumps(value).encode()

    return pt2_with(**{"models/model.json": inject})


def pt2_parameter(marker: Path) -> bytes:
    """A name of a parameter that ends the string in which torch writes it. The marker's path must have no dot."""
    new = json.dumps(f"body\"), open({str(marker)!r}, 'w'), (\"").encode()

    def rename(data: bytes) -> bytes:
        return data.replace(b'"body.0.weight"', new)

    return pt2_with(**{"models/model.json": rename, "weights_config.json": rename})


def pt2_operator(target: str) -> bytes:
    def inject(data: bytes) -> bytes:
        value = json.loads(data)
        value["graph_module"]["graph"]["nodes"][0]["target"] = target
        return json.dumps(value).encode()

    return pt2_with(**{"models/model.json": inject})


def pt2_member(name: str, content: bytes) -> bytes:
    def add(member: str, data: bytes) -> list[tuple[str, bytes]]:
        more = [(member.split("/", 1)[0] + "/" + name, content)] if member.endswith("archive_format") else []
        return [(member, data), *more]

    return rewritten(pt2(), add)


def pt2_key_twice() -> bytes:
    return pt2_with(**{"models/model.json": lambda data: b'{"guards_code": [], ' + data.lstrip()[1:]})


def script(module: nn.Module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
