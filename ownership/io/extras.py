"""Optional dependencies: which extra installs which module, and one clear error where a module is missing."""

from __future__ import annotations

import sys
from importlib import import_module

from ownership.errors import OwnershipError

EXTRAS = {
    "torchvision": "train",
    "timm": "train",
    "onnxscript": "train",
    "rfc3161_client": "seal",
    "py_ecc": "seal",
    "httpx": "endpoint",
    "pyarrow": "parquet",
    "starlette": "serve",
    "uvicorn": "serve",
}
"""Module -> the extra of `pyproject.toml` that installs it. Everything else belongs to the base installation."""


def require(module: str, *, extra: str = "") -> None:
    """Import an optional module before anything is done that needs it.

    The interpreter's recursion limit stays as it is: `py_ecc` raises it to 100,000 when it is imported, and at that
    limit deeply nested JSON in a hostile file overflows the C stack instead of raising RecursionError.

    Args:
        module: top-level module name, a key of `EXTRAS`.
        extra: the extra to name, for a module that several extras install.

    Raises:
        OwnershipError: a module is missing; the hint is the `pip install` command that adds it.
    """
    limit = sys.getrecursionlimit()
    try:
        import_module(module)
    except ModuleNotFoundError as e:
        if e.name is not None and e.name.split(".")[0] != module:
            raise  # the module is there; something that it needs is not
        extra = extra or EXTRAS[module]
        raise OwnershipError(
            f"this needs {module}, which is not installed (extra {extra!r})",
            f"install turnmark with it: pip install '.[{extra}]' in a checkout",
        ) from e
    finally:
        sys.setrecursionlimit(limit)
