"""Foreign text made safe to print."""

from __future__ import annotations


def printable(text: object, limit: int = 120) -> str:
    r"""Returns foreign text (tensor names, paths, messages of other libraries) as one safe printable line.

    Control characters, bidirectional overrides and line breaks are shown escaped; ordinary letters of any
    script stay as they are.

    >>> printable("a\nb\x1b[31m")
    'a\\nb\\x1b[31m'
    """
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"
