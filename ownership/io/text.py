"""Make untrusted text safe to print."""

from __future__ import annotations


def printable(text: object, limit: int = 120) -> str:
    r"""Return untrusted text (tensor names, paths, messages of other libraries) as one printable line.

    Control characters, bidirectional overrides and line breaks are escaped. Letters of every script stay as they are.

    Args:
        text: Any object; its string form is printed.
        limit: Largest number of characters.

    >>> printable("a\nb\x1b[31m")
    'a\\nb\\x1b[31m'
    """
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"
