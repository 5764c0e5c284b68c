"""Lazy public names of a package (SPEC 1 of Scientific Python): the stub `__init__.pyi` lists each name once.

The stub is what type checkers read. At run time it is the table of where each name is defined, so that importing the
package imports nothing else until a name is used.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` for a package whose stub lists its public names.

    Write in `__init__.py`::

        __getattr__, __dir__, __all__ = attach(__name__, __file__)

    and in `__init__.pyi` one line for each public name, `from package.module import name as name`.

    Args:
        package: `__name__` of the package.
        file: `__file__` of the package.
    """
    homes = public_names(Path(file).with_suffix(".pyi"))
    names = sorted(homes)

    def getattr_(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)  # the next access does not come here
        return value

    return getattr_, names.copy, names


def public_names(stub: Path) -> dict[str, str]:
    """Return public name -> module that defines it, as a stub of absolute imports lists them."""
    return {
        alias.name: node.module
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }
