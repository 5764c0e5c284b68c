"""Tell which of a model's outputs is the representation: by its name, or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ownership.errors import SuspectError
from ownership.io.text import printable

STATED = frozenset(
    f"{of}{what}{s}"
    for of in ("", "image_")
    for what in ("embed", "embedding", "feature", "representation")
    for s in ("", "s")
) | {"pooled_output", "pooler_output"}
"""Names that state a representation, of one vector per image where several vectors are usual."""

MOST_SHOWN = 8
"""Most outputs that an error lists."""


def choose_output(outputs: Mapping[str, Sequence[object]], wanted: str | None) -> str:
    """Return the name of the output that is the representation: the wanted one, the only one, or the one so named.

    Args:
        outputs: name -> shape of each float output.
        wanted: its name; None if the user named none.

    Raises:
        SuspectError: if there is no such output, or several are left.
    """
    shown = _shown(outputs)
    if wanted is not None:
        if wanted not in outputs:
            raise SuspectError(
                f"suspect: the model has no output {printable(wanted, 60)!r} of floats, it has {shown}", "--onnx-output"
            )
        return wanted
    if not outputs:
        raise SuspectError("suspect: the model has no float output (n, d)", "export the pooled representation")
    stated = [name for name in outputs if _bare(name) in STATED]
    for names in (list(outputs), stated):
        if len(names) == 1:
            return names[0]
    raise SuspectError(f"suspect: the model has {len(outputs)} outputs: {shown}", "choose with --onnx-output")


def _bare(name: str) -> str:
    """Return a name without the scopes and the output number that exporters add.

    >>> _bare("encoder/Image-Embeds:0")
    'image_embeds'
    """
    return re.sub(r":\d+$", "", name.rsplit("/", 1)[-1]).lower().replace("-", "_")


def _shown(outputs: Mapping[str, Sequence[object]]) -> str:
    """Return names and shapes as one line of printable text."""
    parts = [
        f"{printable(name, 40)} ({', '.join(printable(side, 12) for side in shape)})"
        for name, shape in list(outputs.items())[:MOST_SHOWN]
    ]
    more = len(outputs) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more else "") if parts else "none"
