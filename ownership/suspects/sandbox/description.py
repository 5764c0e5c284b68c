"""What the sandboxed process says of a model that it loaded. The process is the suspect's: all of it is checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ownership.io.text import printable
from ownership.suspects.formats.checkpoint import MOST_ENTRIES
from ownership.suspects.sandbox.frames import BadFrame

CHOICES = ("output", "pooling", "batch", "left_aside")
"""What a suspect's process may say that it has chosen: an output, where vectors lie, one image at a time, tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a loaded model is.

    Attributes:
        format: As `detect_format` says.
        architecture: Of bare weights.
        size: Height and width of its images, 0 for any; None if it takes any size.
        entries: Of a checkpoint: names of the encoders in it with different weights, the loaded one first.
        mean: Of bare weights without normalisation: what images are normalised by before them.
        std: Likewise.
        stated: Whether mean and std are stated beside the weights; else they are those of a library.
    """

    format: str = ""
    architecture: str | None = None
    size: tuple[int, int] | None = None
    entries: tuple[str, ...] = ()
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    stated: bool = False

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> Description:
        """Return the description in a reply; what is malformed in it counts as not said."""
        size, architecture, entries = reply.get("size"), reply.get("architecture"), reply.get("entries")
        given = reply.get("normalisation")
        given = given if isinstance(given, dict) else {}
        mean, std = _three(given.get("mean")), _three(given.get("std"))
        if mean is None or std is None or min(std) <= 0:
            mean = std = None
        pair = isinstance(size, list) and len(size) == 2 and all(type(x) is int for x in size)
        named = isinstance(entries, list) and len(entries) <= MOST_ENTRIES and all(isinstance(x, str) for x in entries)
        return cls(
            format=printable(reply.get("format"), 40),
            architecture=printable(architecture) if isinstance(architecture, str) else None,
            size=(size[0], size[1]) if pair and size is not None else None,
            entries=tuple(entries) if named and entries is not None else (),
            mean=mean,
            std=std,
            stated=given.get("stated") is True,
        )


def _three(value: Any) -> tuple[float, float, float] | None:
    if not isinstance(value, list) or len(value) != 3 or not all(type(x) in (int, float) for x in value):
        return None
    a, b, c = (float(x) for x in value)
    return (a, b, c) if all(math.isfinite(x) and abs(x) <= 1e4 for x in (a, b, c)) else None


def choices_in(reply: Mapping[str, Any]) -> dict[str, str]:
    """Return what the process says that it has chosen, as printable text.

    Raises:
        BadFrame: If that is no such text.
    """
    said = reply.get("choices", {})
    if not isinstance(said, dict) or any(k not in CHOICES or not isinstance(v, str) for k, v in said.items()):
        raise BadFrame("no choices")
    return {name: printable(text) for name, text in said.items()}
