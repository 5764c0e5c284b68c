"""What a suspect was asked, in words: which entry of its checkpoint, images of which size, normalised how, and why."""

from __future__ import annotations

from collections.abc import Sequence

from ownership.verdict.records import SuspectRecord

_WHY = {
    "option": "as declared",
    "files": "as its files state",
    "library": "which its library uses; its files state none",
}


def preparation(suspect: SuspectRecord) -> list[str]:
    """Return what was chosen to ask a suspect, one clause each; nothing where there was no choice."""
    said = []
    if (entry := suspect.entry) is not None and suspect.entries_tried:
        said.append(f"entry {entry} of its checkpoint: {_smallest(suspect.entries_tried)}")
    if (rest := suspect.choices.get("left_aside")) is not None:
        said.append(f"of its checkpoint {rest}, belong to no encoder of a known architecture and were left aside")
    if (output := suspect.choices.get("output")) is not None:
        said.append(f"its output {output} was taken")
    if (pooling := suspect.choices.get("pooling")) is not None:
        said.append(f"several vectors of an image became one: {pooling}")
    if (batch := suspect.choices.get("batch")) is not None:
        said.append(f"it was asked {batch}, because its responses depend on the batch")
    if suspect.resized_to:
        height, width = suspect.resized_to
        said.append(f"probes were resized to its {height}x{width} pixels (bilinear)")
    if suspect.preprocessings_tried:
        said.append(f"preprocessing {suspect.preprocessing}: {_smallest(suspect.preprocessings_tried)}")
    elif suspect.preprocessing_from == "assumed":
        said.append(
            "images were given in [0, 1], with no normalisation, as its file states none: if it was trained with one, "
            "nothing follows from tests that do not reject (--preprocess try tests several)"
        )
    elif suspect.preprocessing != "none":
        said.append(f"preprocessing {suspect.preprocessing}, {_WHY[suspect.preprocessing_from]}")
    return said


def _smallest(tried: Sequence[str]) -> str:
    return f"of {', '.join(tried)} the one with the smallest p-value, each tested at its share of alpha"
