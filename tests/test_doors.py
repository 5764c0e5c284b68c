"""Public names: each package exports what its stub lists, and every type that an exported signature mentions."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ownership.io.lazy import public_names

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ownership", "watermark_training", "attacks_for_eval")
DOORS = [name for name in PACKAGES if (ROOT / name / "__init__.pyi").is_file()]
PUBLIC_METHODS = ("__init__", "__call__", "__enter__", "__getitem__", "__iter__")


@pytest.mark.parametrize("door", DOORS)
def test_the_stub_lists_what_is_exported(door: str) -> None:
    package = importlib.import_module(door)
    names = public_names(ROOT / door / "__init__.pyi")
    assert package.__all__ == sorted(names) == dir(package)
    for name, home in names.items():
        assert getattr(package, name) is getattr(importlib.import_module(home), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize("door", DOORS)
def test_the_stub_is_sorted_and_names_each_once(door: str) -> None:
    lines = (ROOT / door / "__init__.pyi").read_text(encoding="utf-8").splitlines()
    imports = [line for line in lines if line.startswith("from ")]
    assert len(imports) == len(public_names(ROOT / door / "__init__.pyi"))
    for line in imports:
        words = line.split()
        assert words[::2] == ["from", "import", "as"], line
        assert words[3] == words[5], line


@pytest.mark.parametrize("door", DOORS)
def test_no_public_name_is_a_modules_name(door: str) -> None:
    """Importing the module would replace the public object."""
    modules = {module.name for module in pkgutil.iter_modules([str(ROOT / door)])}
    assert not modules & set(public_names(ROOT / door / "__init__.pyi"))


@pytest.mark.parametrize("door", DOORS)
def test_every_type_of_an_exported_signature_is_exported(door: str) -> None:
    exported = {id(getattr(importlib.import_module(d), name)) for d in DOORS for name in public_names(_stub(d))}
    package = importlib.import_module(door)
    missing = {
        f"{where} mentions {kind.__module__}.{kind.__qualname__}"
        for name in package.__all__
        for where, function in _public_functions(getattr(package, name))
        for kind in _types_of(function)
        if kind.__module__.split(".")[0] in DOORS and id(kind) not in exported
    }
    assert not missing, "\n".join(sorted(missing))


@pytest.mark.parametrize("door", DOORS)
def test_exported_functions_take_a_path_as_text_too(door: str) -> None:
    package, missing = importlib.import_module(door), []
    for name in package.__all__:
        for where, function in _public_functions(getattr(package, name)):
            if inspect.isclass(function):
                continue  # fields of a record are paths
            hints = typing.get_type_hints(function, localns=_imported_for_types(sys.modules[function.__module__]))
            hints.pop("return", None)
            missing += [f"{where}: {n}" for n, h in hints.items() if Path in _united(h) and str not in _united(h)]
    assert not missing


@pytest.mark.heavy
def test_import_is_cheap() -> None:
    code = (
        "import sys, ownership; heavy = {'torch', 'numpy', 'typer', 'onnxruntime', 'matplotlib', 'sklearn'};"
        "assert not heavy & set(sys.modules);"
        "from ownership import Claim, load_suspect, audit; import types;"
        "assert isinstance(audit, types.FunctionType);"
        "heavy = {'typer', 'onnxruntime', 'matplotlib', 'sklearn'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def _stub(door: str) -> Path:
    return ROOT / door / "__init__.pyi"


def _public_functions(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and function of a public function, or of a class (for its fields) and its public methods."""
    if inspect.isfunction(thing):
        yield thing.__name__, thing
    elif inspect.isclass(thing):
        yield thing.__name__, thing
        for name, member in vars(thing).items():
            if name.startswith("_") and name not in PUBLIC_METHODS:
                continue
            if name == "__init__" and dataclasses.is_dataclass(thing):
                continue  # made from the fields
            if isinstance(member, property):
                member = member.fget
            elif isinstance(member, staticmethod | classmethod):
                member = member.__func__
            if inspect.isfunction(member):
                yield f"{thing.__name__}.{name}", member


def _types_of(thing: Any) -> Iterator[type]:
    """Yield the classes that the annotations of a function, or of a class's public fields, mention."""
    names: dict[str, Any] = {}
    for part in inspect.getmro(thing) if inspect.isclass(thing) else (thing,):
        if part.__module__.split(".")[0] in DOORS:
            names |= _imported_for_types(sys.modules[part.__module__])
    for name, hint in typing.get_type_hints(thing, localns=names).items():
        if not name.startswith("_"):
            yield from _classes(hint)


def _united(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) or (hint,)


def _classes(hint: Any) -> Iterator[type]:
    for part in (typing.get_origin(hint), *typing.get_args(hint)) if typing.get_origin(hint) else (hint,):
        if isinstance(part, list | tuple):
            for inner in part:
                yield from _classes(inner)
        elif typing.get_origin(part) is not None:
            yield from _classes(part)
        elif inspect.isclass(part):
            yield part


def _imported_for_types(module: ModuleType) -> dict[str, Any]:
    """Names that a module imports for type checkers only."""
    names: dict[str, Any] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            exec(compile(ast.Module(node.body, []), module.__name__, "exec"), names)
    return names
