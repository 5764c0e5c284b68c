"""What stands beside weights in a model's folder: `config.json`, `preprocessor_config.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ownership.encoders.architectures import is_architecture
from ownership.errors import SuspectError
from ownership.io.files import read_json
from ownership.io.text import printable

LARGEST_SIDE = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Contents of a `config.json` beside weights."""

    architectures: tuple[str, ...] = ()  # candidates: a name may be in `ARCHITECTURES`, in timm, or in both
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None  # height and width of the images
    global_pool: str | None = None  # of a transformer of timm


def read_model_config(path: Path) -> ModelConfig:
    """Read architecture, mean, std and size from `config.json`, as timm and Turnmark write it.

    Mean and std are also read from a `preprocessor_config.json` beside it, as transformers writes it.

    Raises:
        SuspectError: If it is the folder of a transformers model that only transformers can load.
    """
    value = read_json(path, SuspectError, "suspect") if path.is_file() else {}
    name, about = value.get("architecture"), value.get("pretrained_cfg")
    about = about if isinstance(about, dict) else {}
    other = path.with_name("preprocessor_config.json")
    beside = read_json(other, SuspectError, "suspect") if other.is_file() else {}
    names = (name, f"timm:{name}") if isinstance(name, str) else ()
    known = tuple(n for n in names if is_architecture(n))
    kind = value.get("model_type")
    if isinstance(kind, str) and not known:
        raise SuspectError(
            f"suspect: a transformers model ({printable(kind, 40)}), whose weights are not read from its folder",
            "export it to ONNX (optimum-cli export onnx), or record its representations",
        )
    pool = value.get("global_pool")
    return ModelConfig(
        architectures=known,
        mean=_channels(about.get("mean", beside.get("image_mean")), positive=False),
        std=_channels(about.get("std", beside.get("image_std")), positive=True),
        size=_size(about.get("input_size")),
        global_pool=pool if pool in ("avg", "token") else None,
    )


def _channels(given: Any, *, positive: bool) -> tuple[float, ...] | None:
    """Return three finite numbers, or None."""
    numbers = isinstance(given, list) and len(given) == 3 and all(type(x) in (int, float) for x in given)
    if not numbers or not all(math.isfinite(x) and (x > 0 or not positive) for x in given):
        return None
    return tuple(float(x) for x in given)


def _size(given: Any) -> tuple[int, int] | None:
    """Return height and width of timm's `input_size`, channels first, or None."""
    if not isinstance(given, list) or len(given) != 3 or not all(type(x) is int for x in given):
        return None
    _, height, width = given
    return (height, width) if all(1 <= x <= LARGEST_SIDE for x in (height, width)) else None
