"""Show the doctests of docstrings as code on the site (an extension of griffe, by which mkdocstrings reads Python)."""

from __future__ import annotations

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^>>> .*(?:\n(?!\s*$).+)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """Put each doctest into a fenced block; otherwise its brackets read as links."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite an object's docstring."""
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(lambda m: f"```pycon\n{m[0]}\n```", obj.docstring.value)
