"""Which came first, the key or the suspect: what the timestamps and the stated date show, as a code. Twins likewise.

The key test is exact if the key does not depend on the suspect. A key that was committed to before the suspect existed
cannot. Of any other key it is not excluded that its owner drew keys until one fitted the suspect.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from ownership.verdict.records import KeyRecord, SealRecord, TwinsRecord


class KeyOrder(StrEnum):
    """What is shown about the order of key and suspect."""

    KEY_FIRST = "key_first"  # a trusted authority stamped the commitment before the suspect is known to exist
    SUSPECT_FIRST = "suspect_first"  # it stamped the commitment after that
    NO_DATE = "no_date"  # it stamped the commitment; no date of the suspect was stated
    UNCHECKED = "unchecked"  # the commitment is stamped, and no root certificates were given to check it
    UNANCHORED = "unanchored"  # nothing shows when the key was drawn


def key_order(key: KeyRecord | TwinsRecord, published: str | None) -> KeyOrder:
    """Return what is shown about the order of key and suspect.

    Args:
        key: The key, or the twins, with the anchor.
        published: Time from which the suspect is known to exist, as stated; ISO, with its zone.
    """
    if key.anchor is None:
        return KeyOrder.UNANCHORED
    if not key.anchor.trusted:
        return KeyOrder.UNCHECKED
    if published is None:
        return KeyOrder.NO_DATE
    first = datetime.fromisoformat(key.anchor.time) < datetime.fromisoformat(published)
    return KeyOrder.KEY_FIRST if first else KeyOrder.SUSPECT_FIRST


def stamped_first(seal: SealRecord | None, published: str | None) -> str | None:
    """Return the time of the earliest trusted timestamp of a claim's seal, if it is before the suspect's first date.

    Args:
        seal: Of the claim.
        published: Time from which the suspect is known to exist, as stated; ISO, with its zone.
    """
    times = [] if seal is None else [t.time for t in seal.timestamps if t.trusted]
    first = min(times, key=datetime.fromisoformat, default=None)
    if first is None or published is None or datetime.fromisoformat(first) >= datetime.fromisoformat(published):
        return None
    return first
