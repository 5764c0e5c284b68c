"""Frozen dataclasses as JSON-ready values and back, with the type of every field checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def to_json(value: object) -> Any:
    """Return JSON-ready values: a dataclass as an object of its fields, a tuple as a list, an enum as its value."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value) if f.init}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    return value


def from_json(kind: Any, value: Any) -> Any:
    """Return the object that `to_json` wrote.

    Args:
        kind: its type: a dataclass, an enum, str, int, float, bool, or a tuple, dict, Literal or optional of these.
        value: parsed JSON.

    Raises:
        TypeError, ValueError: if a value has another type, or a field is missing or unknown.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        (only,) = (k for k in inner if k is not NoneType)
        return from_json(only, value)
    if origin is tuple:
        return _tuple(inner, value)
    if origin is dict:
        return {_checked(str, k): from_json(inner[1], v) for k, v in _checked(dict, value).items()}
    if origin is Literal:
        if value not in inner:
            raise ValueError(f"{value!r} is not one of {inner}")
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind)
        if _checked(dict, value).keys() != hints.keys():
            raise ValueError(f"{kind}: fields are missing or unknown")
        return kind(**{name: from_json(hint, value[name]) for name, hint in hints.items()})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if kind is float and type(value) is int:
        return float(value)
    return _checked(kind, value)


def _tuple(inner: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    items = _checked(list, value)
    kinds = (inner[0],) * len(items) if inner[-1] is Ellipsis else inner
    return tuple(from_json(k, v) for k, v in zip(kinds, items, strict=True))


def _checked(kind: type, value: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields, by name."""
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind) if f.init}
