"""What a claim records about one encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderRecord:
    """What a claim records about one encoder: the victim, a panel member or a reference surrogate."""

    name: str
    kind: str  # victim, reference, or the stratum, a name in ownership.plan.STRATA
    sha256: str  # of its file
    architecture: str | None = None
    watermark: str | None = None  # secret, paper, none; None: unknown
    data: str | None = None  # what it was trained on, in words
    trained_on_private: bool | None = None  # None: unknown
    dim: int = 0
    teacher: str = ""  # of a student: SHA-256 of the encoder that it was taught by, if that is known

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON-ready values; claims of before docs/adr/0025 know no teachers."""
        return {k: v for k, v in asdict(self).items() if k != "teacher" or v}


def teachers_among(members: Sequence[EncoderRecord]) -> dict[str, str]:
    """Returns, of each student among the members, the name of the member it was taught by, or ""."""
    names = {m.sha256: m.name for m in members}
    return {m.name: names.get(m.teacher, "") for m in members if m.kind == "distilled"}


def record_from(value: dict[str, Any]) -> EncoderRecord:
    """Returns the record stored by `EncoderRecord.to_dict`.

    Raises:
        KeyError: if a field is missing.
    """
    stored = {"teacher": "", **value}
    return EncoderRecord(**{f.name: stored[f.name] for f in fields(EncoderRecord)})
