"""The summary of an audit of several suspects: each has its own report; the correction is over all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from ownership.io.files import write_bytes, write_json
from ownership.io.records import to_json
from ownership.reports.glossary import format_exact_p, format_p
from ownership.reports.html import template
from ownership.reports.sentences import percent
from ownership.verdict.rule import Verdict

SCHEMA_VERSION = 1

MIN_RELIABLE_P = 0.001
"""Below it, a p-value of few panel members extrapolates a normal tail (rule 3)."""


class WarningCode(StrEnum):
    """What a reader has to know about a batch; the comment names the data of each."""

    CAPACITY_UNKNOWN = "capacity_unknown"
    OVER_CAPACITY = "over_capacity"  # suspects, capacity
    UNRELIABLE_PVALUES = "unreliable_pvalues"  # suspects, required_pvalue, members, max_reliable_suspects
    REFUSED_SUSPECTS = "refused_suspects"  # refused, suspects
    SUPPORTED_ALONE = "supported_alone"  # name, suspects


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchWarning:
    """One warning."""

    code: WarningCode
    data: Mapping[str, Any] = field(default_factory=dict)  # JSON-ready


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectSummary:
    """One suspect of a batch."""

    name: str
    folder: str | None  # of its report, in the folder of the summary; None: it was not audited
    refused: str | None  # why it could not be audited
    sha256: str | None
    verdict: Verdict | None  # of its own report
    pvalue: float | None  # smallest error rate at which the rule supports the claim; None: nothing was tested
    adjusted_pvalue: float | None  # Holm over all suspects
    supported: bool  # after that correction


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSummary:
    """What the audits of several suspects say together."""

    claim_sha256: str
    alpha: float  # probability that any independent encoder among the suspects is a false positive, at most
    suspects: tuple[SuspectSummary, ...]
    capacity: int | None  # suspects among which half of the references are still detected; None: no references
    smallest_stratum: int | None  # members of the smallest stratum tested against

    @property
    def max_reliable_suspects(self) -> int:
        """Number of suspects up to which none needs a p-value below `MIN_RELIABLE_P`."""
        return math.floor(self.alpha / MIN_RELIABLE_P + 1e-9)

    @property
    def exact(self) -> bool:
        """Whether every p-value is exact: no suspect was tested against a panel."""
        return self.smallest_stratum is None

    @property
    def supported(self) -> tuple[SuspectSummary, ...]:
        """The suspects for which the claim is supported after the correction."""
        return tuple(s for s in self.suspects if s.supported)

    @property
    def warnings(self) -> tuple[BatchWarning, ...]:
        """What a reader has to know about so many suspects and a panel of this size."""
        n, found = len(self.suspects), []

        def warn(code: WarningCode, **data: Any) -> None:
            found.append(BatchWarning(code=code, data=data))

        if self.exact:
            pass  # capacity and reliability are of a panel
        elif self.capacity is None:
            warn(WarningCode.CAPACITY_UNKNOWN)
        elif n > self.capacity:
            warn(WarningCode.OVER_CAPACITY, suspects=n, capacity=self.capacity)
        if n > self.max_reliable_suspects and not self.exact:
            warn(
                WarningCode.UNRELIABLE_PVALUES,
                suspects=n,
                required_pvalue=self.alpha / n,
                members=self.smallest_stratum,
                max_reliable_suspects=self.max_reliable_suspects,
            )
        if refused := sum(s.refused is not None for s in self.suspects):
            warn(WarningCode.REFUSED_SUSPECTS, refused=refused, suspects=n)
        for s in self.suspects:
            if s.verdict is Verdict.SUPPORTED and not s.supported:
                warn(WarningCode.SUPPORTED_ALONE, name=s.name, suspects=n)
        return tuple(found)

    @property
    def exit_code(self) -> int:
        """0 if the claim is supported for a suspect; else 2 if a suspect could not be audited; else 1."""
        if self.supported:
            return 0
        return 2 if any(s.refused is not None for s in self.suspects) else 1

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-ready values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "claim_sha256": self.claim_sha256,
            "alpha": self.alpha,
            "correction": "holm",
            "capacity": self.capacity,
            "max_reliable_suspects": self.max_reliable_suspects,
            "smallest_stratum": self.smallest_stratum,
            "warnings": to_json(self.warnings),
            "suspects": to_json(self.suspects),
        }

    def save(self, folder: Path | str) -> None:
        """Write `summary.json` and `summary.html`."""
        folder = Path(folder)
        write_json(folder / "summary.json", self.to_dict())
        page = template("batch.html.j2").render(
            batch=self,
            warnings=[warning_sentence(w) for w in self.warnings],
            min_reliable_p=MIN_RELIABLE_P,
            format_p=format_exact_p if self.exact else format_p,
            percent=percent(self.alpha),
        )
        write_bytes(folder / "summary.html", page.encode())


def warning_sentence(of: BatchWarning) -> str:
    """Return a warning in words, without a full stop."""
    d = of.data
    if of.code is WarningCode.CAPACITY_UNKNOWN:
        return "the claim has no reference surrogates, so it is not known how many suspects its panel can serve"
    if of.code is WarningCode.OVER_CAPACITY:
        return (
            f"{d['suspects']} suspects exceed the capacity of this panel: among more than {d['capacity']}, most "
            "surrogates like the owner's are missed, so a negative finding means little"
        )
    if of.code is WarningCode.UNRELIABLE_PVALUES:
        return (
            f"among {d['suspects']} suspects the first has to reach p < {d['required_pvalue']:.2g}. p-values below "
            f"{MIN_RELIABLE_P:g} extrapolate a normal tail from {d['members'] or 'few'} panel members per stratum; "
            f"they are reliable for up to {d['max_reliable_suspects']} suspects"
        )
    if of.code is WarningCode.REFUSED_SUSPECTS:
        return (
            f"{d['refused']} of {d['suspects']} suspects could not be audited; they count as audited in the correction"
        )
    return (
        f"the claim is SUPPORTED for {d['name']} alone, but not among {d['suspects']} suspects: without a correction, "
        "so many audits give too many false positives"
    )
