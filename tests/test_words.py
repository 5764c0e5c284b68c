"""The word list finds what it names and leaves the rest alone."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

FINDINGS = runpy.run_path(str(Path(__file__).resolve().parent.parent / "tools/words.py"))["findings"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Two innocents were accused; rates_of_innocents", ["innocents", "accused", "innocents"]),
        ("a thief, his thefts, in 12 passes", ["thief", "his", "thefts", "12 passes"]),
        ("at most .1 to 2.0 %, alpha (.05), 0.05, v1.2, x[.5]", [".1", ".05", ".5"]),
        ("StolenEncoder, cont-steal, packages, a kind, the test passes", []),
        ("an upright student; Student's t-test", ["upright", "student"]),
        ("turned_directions; turned images; turned out", ["turned_directions", "turned images"]),
    ],
)
def test_words_are_found(line: str, words: list[str]) -> None:
    assert [word for _, word, _ in FINDINGS(line)] == words
