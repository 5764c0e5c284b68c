"""Groups of audits: by panel, by what the attacker did, by how useful the surrogate is."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.common.rows import Row

FULL_SIZE, SMALL_OR_PUBLIC = "full-size", "small-or-public"
"""Kinds of panels: encoders like the victim, trained for the purpose; small and public encoders (ADR 8)."""

USUAL_LOSSES = ("mse", "infonce", "softnn", "barlow")
PRICES = (0.0, 0.01, 0.02, 0.03, 0.05)
"""Bounds of the loss in linear-probe accuracy, as shares."""


def panel_of(row: Row) -> str:
    """Return the kind of panel that the claim had."""
    return str(row["case"]).partition(", ")[2] or FULL_SIZE


def victim_of(row: Row) -> int:
    """Return the number of the claim's victim."""
    return int(str(row["case"]).partition(", ")[0].removeprefix("victim_"))


def is_plain(row: Row) -> bool:
    """Return whether a surrogate is neither transformed afterwards nor trained for rotation invariance."""
    evades = row["weight_transforms"] or row["output_transform"] or row["kind"] == "rotation-invariant"
    return row["role"] == "surrogate" and not evades


def is_close(row: Row) -> bool:
    """Return whether a model's linear probe is within two points of its victim's."""
    return bool(row["utility"] >= row["victim_utility"] - 0.02)


def is_useful(row: Row, independents: Sequence[Row]) -> bool:
    """Return whether a surrogate beats the linear probe of an encoder made from the same queries without the victim.

    Where the loss needs labels, the attacker could have trained with them, as a classifier or by the same loss with a
    teacher of its own: the comparison is then the better of the two.
    """
    objectives = ("supervised", "distilled") if row["loss"] == "supcon" else ("simclr",)
    same = [r for r in independents if r["kind"] == "the attacker's queries" and r["objective"] in objectives]
    at = [r["utility"] for r in same if r["images"] == row["images"]]
    return bool(at) and row["utility"] > max(at)


def price_of(row: Row) -> str:
    """Return the range of the attacker's loss in points of linear probe, compared with the victim."""
    return PRICE_NAMES[sum(row["victim_utility"] - row["utility"] > x for x in PRICES)]


PRICE_NAMES = ("none", "0 to 1", "1 to 2", "2 to 3", "3 to 5", "more than 5")
"""Names of the ranges that `PRICES` bounds."""
