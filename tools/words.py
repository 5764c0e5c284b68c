"""Report the words that Turnmark does not use: of guilt, and of a dialect where the field has a term.

`make lint` runs it over every tracked text file. It prints `path:line: word -> use this` and exits with 1 if it finds
any.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SUFFIXES = {".py", ".pyi", ".md", ".toml", ".j2", ".yml", ".yaml", ".json", ".cff", ".svg", ""}
# Decision records keep the words of their time; rows and golden files are data; this file and its test hold the list.
SKIPPED = ("docs/adr/", "tests/golden/", "tools/words.py", "tests/test_words.py", "LICENSE")
# A name in a reference, and two spellings that seeds of panel members are drawn from (`panel_spec.py`).
ALLOWED = re.compile(
    r"\band He\b|\"(?:sibling\": \"ancestor|distilled_from\": \"student_of)\"|\"student\"|\bstudent, teacher\b"
)

WORDS = {
    r"innocen\w*": "independent (encoder), null model",
    r"guilt\w*": "(a test rejects or does not reject)",
    r"convict\w*": "reject, false positive",
    r"accus(?!ativ)\w*": "claim, false positive",
    r"thie(?:f|ves)|thefts?": "attacker; extraction attack; surrogate",
    r"strangers?": "independent encoder",
    r"(?<![a-z])(?:un)?caged?(?![a-z])": "sandbox, sandboxed",
    r"launder\w*": "evasion, output or weight transform",
    r"\bdecoy[ _]keys?": "control keys",
    r"how[- _]manieth": "occurrence",
    r"(?<![a-z])kin(?![a-z])": "sibling fine-tune",
    r"(?:\d+|\b(?:one|two|more|many|of|in|few)) passes\b|\bpasses over\b": "epochs",
    r"(?<![a-z])(?:likeness|guiltier|peculiar|idiosyncratic)(?![a-z])": "similarity, victim-specific",
    r"(?<![a-z])upright(?![a-z])": "unrotated",
    r"(?<![a-z])students?(?!'s t|[a-z])": "distilled control",
    r"(?<![a-z])ancestors?(?![a-z])": "base checkpoint",
    r"\bdeciding\b|\bshown only\b": "primary, secondary",
    r"\bimages a step\b": "batch size",
    r"\bthe mark\b|\b(?:un)?marked (?:encoder|member|model|victim|surrogate|one)s?\b": "watermark, watermarked",
    r"\bturned (?:image|reading|copy|copies|probe|view|answer)s?\b": "rotated",
    r"\bpartial_rsa_turned\b|\bturned_\w+": "rotated",
    r"\b(?:he|him|his|himself)\b": "the attacker, the owner, its",
    r"\b(?:whoever|whomever|somebody|nobody|anybody|everybody)\b": "name the actor",
    r"(?<![\w.\])}/\\\"'`-])\.\d+(?![\w./])": "a leading zero",
}
PATTERN = re.compile("|".join(f"({word})" for word in WORDS), re.IGNORECASE)


def findings(text: str) -> list[tuple[int, str, str]]:
    """Return `(line number, word found, advice)` for each word of the list in a text."""
    advice = list(WORDS.values())
    return [
        (number, match[0], advice[(match.lastindex or 1) - 1])
        for number, line in enumerate(text.splitlines(), 1)
        for match in PATTERN.finditer(ALLOWED.sub("", line))
    ]


def main() -> int:
    """Check the tracked files; print what is found and how many lines that is."""
    names = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout.split("\0")
    lines = set()
    for name in filter(None, names):
        path = Path(name)
        if name.startswith(SKIPPED) or path.suffix not in SUFFIXES or not path.is_file():
            continue
        for number, word, use in findings(path.read_text(encoding="utf-8", errors="replace")):
            lines.add((name, number))
            print(f"{name}:{number}: {word!r} -> {use}")
    print(f"words: {len(lines)} lines with a word of the list", file=sys.stderr)
    return int(bool(lines))


if __name__ == "__main__":
    raise SystemExit(main())
