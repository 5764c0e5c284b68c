"""What a claim records about one encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple, Self

from ownership.encoders.images import EncoderLike


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderRecord:
    """What a claim records about one encoder: the victim, a panel member or a reference surrogate.

    Attributes:
        name: Its name in the claim, which is also the name of the file with its representations.
        kind: "victim", "reference", or the stratum of a panel member (`ownership.plan.STRATA`).
        sha256: SHA-256 of its file.
        architecture: Name of its architecture; None: unknown.
        watermark: "secret", "paper" or "none"; None: unknown.
        data: Its training images, in words; None: unknown.
        trained_on_private: Whether it was trained on the owner's private images; None: unknown.
        dim: Dimension of its representations.
        teacher: Of a distilled encoder, SHA-256 of the encoder it was distilled from; None: unknown or not distilled.
    """

    name: str
    kind: str
    sha256: str
    architecture: str | None = None
    watermark: str | None = None
    data: str | None = None
    trained_on_private: bool | None = None
    dim: int = 0
    teacher: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Return the record stored by `to_dict`.

        Raises:
            ValueError: If a field is missing or unknown.
        """
        if set(value) != {f.name for f in fields(cls)}:
            raise ValueError("encoder record: fields missing or unknown")
        return cls(**value)


class NamedEncoder(NamedTuple):
    """An encoder with its record: the victim, a panel member or a reference surrogate of a claim to build.

    Attributes:
        record: What the claim records about it.
        encoder: The encoder: images `(n, c, h, w)` float in `[0, 1]` -> representations `(n, d)`.
    """

    record: EncoderRecord
    encoder: EncoderLike


def teachers_among(members: Sequence[EncoderRecord]) -> dict[str, str]:
    """Return, for each distilled member, the name of the member it was distilled from; "" if that is no member."""
    names = {m.sha256: m.name for m in members}
    return {m.name: names.get(m.teacher or "", "") for m in members if m.kind == "distilled"}
