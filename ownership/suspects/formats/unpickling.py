"""Read a PyTorch checkpoint with an unpickler that builds tensors and containers, and nothing else.

Checkpoints hold hyper-parameters beside weights (argparse.Namespace, numpy scalars, paths): objects that PyTorch's own
restricted unpickler refuses. Here a name that is none of the few that tensors are made of becomes a `Skipped`: a class
that takes anything, keeps nothing and calls nothing. What is called is in `_TENSORS`.
"""

from __future__ import annotations

import pickle
import tarfile
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import torch
from torch import Tensor

from ownership.errors import SuspectError, UnsafeSuspectError
from ownership.io.text import printable

CODE = {
    *("os", "posix", "nt", "sys", "io", "subprocess", "shutil", "runpy", "importlib", "pty", "socket", "ctypes"),
    *("code", "webbrowser", "pickle", "marshal", "types", "operator", "functools", "torch.hub"),
    "torch.utils.cpp_extension",
}
"""Modules whose functions run code or touch files: a file that names one is refused, though nothing would be called."""

BUILTINS = ("builtins", "__builtin__")
HARMLESS = {
    *("object", "list", "dict", "set", "frozenset", "tuple", "slice", "range", "complex", "bytearray", "int", "float"),
    *("str", "bytes", "bool", "type", "Ellipsis", "long", "unicode"),
}
"""Names of `BUILTINS` that a checkpoint may hold; all others are refused like `CODE`."""

_DTYPES = {str(x).removeprefix("torch."): x for x in vars(torch).values() if isinstance(x, torch.dtype)}


class Skipped:
    """What stands for an object that is not built. It takes every argument and every state, and keeps none."""

    called = ""  # what it stands for

    def __new__(cls, *_: object, **__: object) -> Skipped:
        """Return an object that holds nothing."""
        return object.__new__(cls)

    def __setstate__(*_: object) -> None:
        """Keep nothing."""

    def __setitem__(self, *_: object) -> None:
        """Keep nothing: a mapping of an unknown kind."""

    def append(self, *_: object) -> None:
        """Keep nothing: a list of an unknown kind."""

    def extend(self, *_: object) -> None:
        """Keep nothing."""

    def add(self, *_: object) -> None:
        """Keep nothing: a set of an unknown kind."""


class _Callable:
    """A function that the pickle may call, without attributes that the pickle could set."""

    __slots__ = ("call",)
    call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)

    def __setattr__(self, *_: object) -> NoReturn:
        raise pickle.UnpicklingError("a function was given a state")

    def __setstate__(self, _: object) -> NoReturn:
        raise pickle.UnpicklingError("a function was given a state")


def _parameter(data: Tensor, requires_grad: bool, hooks: object, _state: object = None) -> Tensor:
    return data


def _plain(*_: object) -> dict[Any, Any]:
    """Stands for dictionaries with a default."""
    return {}


def _device(*_: object) -> str:
    return "cpu"


_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": torch._utils._rebuild_tensor_v3,
    "torch._utils._rebuild_tensor": torch._utils._rebuild_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": torch.Size,
    "torch.device": _device,
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": _plain,
}
"""All that is called: what plain tensors and mappings are made of."""


class Reader:
    """One reading of a file; `skipped` are the names of the objects that were not built."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def find(self, module: str, name: str) -> Any:
        """Return what a name stands for: a function of `_TENSORS`, a number type of PyTorch, or a `Skipped`."""
        full = f"{module}.{name}"
        if full in ("collections.OrderedDict", "torch.Size"):
            return _TENSORS[full]
        if full in _TENSORS:
            return _Callable(_TENSORS[full])
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module in CODE or module.partition(".")[0] in CODE or (module in BUILTINS and name not in HARMLESS):
            raise _RunsCode(full)
        if full not in self.skipped:
            self.skipped.append(full)
        return type("Skipped", (Skipped,), {"__module__": __name__, "called": full})


class _RunsCode(Exception):
    """The pickle names a function that runs code."""


def read_checkpoint(path: Path) -> Any:
    """Return what a file of `torch.save` holds: containers, numbers, text, tensors, and `Skipped` for all else.

    Raises:
        UnsafeSuspectError: If it names a function that runs code, or is an object and no container. Nothing ran.
        SuspectError: If it is damaged.
        MemoryError: If it needs too much memory.
    """
    reader = Reader()
    if tarfile.is_tarfile(path):  # PyTorch's format before 2016, which it unpacks into files
        raise SuspectError("suspect: a checkpoint of PyTorch 0.1", "save the state dict again")

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return reader.find(module, name)

    def load(file: Any, **options: Any) -> Any:
        return Unpickler(file, **options).load()

    reading: Any = SimpleNamespace(Unpickler=Unpickler, load=load, __name__="restricted")
    try:
        with warnings.catch_warnings():  # torch comments on pickle protocols and layouts; the checks decide
            warnings.simplefilter("ignore")
            value = torch.load(path, map_location="cpu", weights_only=False, mmap=False, pickle_module=reading)
    except _RunsCode as e:
        raise unsafe(str(e)) from e
    except MemoryError:
        raise
    except Exception as e:  # the unpickler raises what the bytes make it raise
        if "allocate" in str(e):
            raise MemoryError from e
        raise SuspectError("suspect: the PyTorch file is damaged", "the copy may have failed; fetch it again") from e
    if isinstance(value, Skipped):
        raise unsafe(reader.skipped[0])
    return value


def unsafe(name: str) -> UnsafeSuspectError:
    """Return the error for a file that is a program."""
    return UnsafeSuspectError(
        f"refused: loading this file would run code ({printable(name, 60)}); nothing ran",
        "ask for a state dict (torch.save(model.state_dict(), ...)) or safetensors",
    )
