"""The chain of custody: from whom and when each examined file was received, as the signer of a report states it.

The digests come from the report, never from the signer: the signer states how a file was received, not which file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ownership.errors import ReportError
from ownership.io.text import printable
from ownership.reports.report import Report

FORMAT_VERSION = 1
LONGEST = 300
"""Characters of a name."""

RECEIVED_HINT = '--received "WHAT: from NAME, YYYY-MM-DD" or "WHAT: from NAME, YYYY-MM-DD, by NAME"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One transfer, as stated."""

    source: str  # from whom
    on: str  # ISO date or time
    by: str | None = None  # who received it; None: the auditor

    def __str__(self) -> str:
        return f"from {self.source}, {self.on}" + (f", by {self.by}" if self.by else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CustodyItem:
    """One thing that the audit examined."""

    what: str  # claim, suspect, probes, "panel NAME", "auditor NAME"
    sha256: str  # as the report has it
    received: tuple[Receipt, ...]  # in the order stated; empty: not stated


@dataclass(frozen=True, slots=True, kw_only=True)
class Custody:
    """What the signer of a report states. Only the key of the signature is proven."""

    auditor: str | None
    signed_at: str  # ISO time, by the signer's own clock
    items: tuple[CustodyItem, ...]
    public_key_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return the predicate of the signed statement."""
        return {
            "format_version": FORMAT_VERSION,
            "auditor": self.auditor,
            "signed_at": self.signed_at,
            "custody": [
                {"what": i.what, "sha256": i.sha256, "received": [asdict(r) for r in i.received]} for i in self.items
            ],
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any], public_key_sha256: str) -> Custody:
        """Return the custody in a predicate; only what `to_dict` wrote gives the same predicate again.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: if a field is missing or malformed.
        """
        if not _is_time(value["signed_at"]):
            raise ValueError("no time")
        return cls(
            auditor=None if value["auditor"] is None else _name(value["auditor"]),
            signed_at=value["signed_at"],
            items=tuple(
                CustodyItem(
                    what=_name(i["what"]),
                    sha256=_name(i["sha256"]),
                    received=tuple(_receipt(r["source"], r["on"], r["by"]) for r in i["received"]),
                )
                for i in value["custody"]
            ),
            public_key_sha256=public_key_sha256,
        )

    def lines(self) -> list[str]:
        """Return one line of text per item."""
        ways = {i.what: "; ".join(map(str, i.received)) or "not stated from whom" for i in self.items}
        return [f"{i.what} (SHA-256 {i.sha256[:16]}…): {ways[i.what]}" for i in self.items]


def examined(report: Report) -> dict[str, str]:
    """Return what an audit examined, name -> SHA-256: the claim, the suspect, and the files of other encoders."""
    found = {"claim": report.claim.sha256, "suspect": report.suspect.sha256}
    if report.suspect.probes_sha256 is not None:
        found["probes"] = report.suspect.probes_sha256
    checked = report.findings.models_checked or {}
    found |= {f"model {name}": check.sha256 for name, check in checked.items() if check.recomputed}
    return found | {f"auditor {m.name}": m.sha256 for m in report.findings.auditor_panel}


def state(
    report: Report, *, auditor: str | None, received: Sequence[str], signed_at: datetime, public_key_sha256: str
) -> Custody:
    """Return the custody of a report from the statements of its auditor.

    Args:
        report: The report, with what was examined and its digests.
        auditor: Name of the signer.
        received: "WHAT: from NAME, DATE[, by NAME]" each; WHAT is a name in `examined`, or "model" or "auditor" for all
            of those encoders. Several statements about one item are its transfers, in order.
        signed_at: Time of signing, with a time zone.
        public_key_sha256: Fingerprint of the signing key.

    Raises:
        ReportError: If a statement cannot be read, names something that was not examined, or has a future date.
    """
    digests = examined(report)
    ways: dict[str, list[Receipt]] = {what: [] for what in digests}
    if not all(digests.values()):
        raise ReportError("the claim of this report was never saved: it has no digest", "save it, and audit again")
    for text in received:
        names, receipt = _parse(text, digests)
        if datetime.fromisoformat(receipt.on).date() > signed_at.date():
            raise ReportError(f"received {receipt.on}, which is after the signing", "check the date")
        for what in names:
            ways[what].append(receipt)
    try:
        name = None if auditor is None else _name(auditor)
    except (TypeError, ValueError) as e:
        raise ReportError(f"the auditor's name {printable(auditor)!r} cannot be printed", "--auditor NAME") from e
    return Custody(
        auditor=name,
        signed_at=signed_at.astimezone(UTC).isoformat(timespec="seconds"),
        items=tuple(CustodyItem(what=w, sha256=d, received=tuple(ways[w])) for w, d in digests.items()),
        public_key_sha256=public_key_sha256,
    )


def _parse(text: str, digests: dict[str, str]) -> tuple[list[str], Receipt]:
    """Return the items that a statement is about, and the transfer that it states."""
    known = {what: [what] for what in digests}
    for group in ("model", "auditor"):
        members = [what for what in digests if what.startswith(f"{group} ")]
        known |= {group: members} if members else {}
    what = next((k for k in sorted(known, key=len, reverse=True) if text.startswith(f"{k}: from ")), None)
    if what is None:
        raise ReportError(
            f"{printable(text)!r} is no statement about what was examined ({printable(', '.join(known), 200)})",
            RECEIVED_HINT,
        )
    stated, comma, by = text.removeprefix(f"{what}: from ").partition(", by ")
    source, _, on = stated.rpartition(", ")
    try:
        return known[what], _receipt(source, on, by if comma else None)
    except (TypeError, ValueError) as e:
        raise ReportError(f"{printable(text)!r} does not state from whom and when", RECEIVED_HINT) from e


def _receipt(source: str, on: str, by: str | None) -> Receipt:
    datetime.fromisoformat(on)
    return Receipt(source=_name(source), on=_name(on), by=None if by is None else _name(by))


def _name(text: str) -> str:
    """Return a printable text; raise ValueError or TypeError for any other."""
    if not text or text != printable(text, LONGEST):
        raise ValueError("no printable name")
    return text


def _is_time(text: str) -> bool:
    return datetime.fromisoformat(text).tzinfo is not None
