"""Reports and tests made of chosen numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ownership.evidence.querying import Problem, ProblemCode
from ownership.plan import Plan
from ownership.reports.report import Report
from ownership.verdict.findings import Findings
from ownership.verdict.records import AuditOptions, ClaimRecord, SuspectRecord, VictimRecord
from ownership.verdict.results import ProbeQuality, TestResult


def result(
    name: str, value: float, plain: list[float], watermarked: list[float] | None, references: tuple[float, ...] = (9.0,)
) -> TestResult:
    groups = {"plain": plain} | ({"watermarked": watermarked} if watermarked else {})
    return TestResult(
        name=name,
        family="watermark" if "watermark" in name else "distance",
        title=name,
        null_hypothesis="H0",
        alternative="greater",
        scale="identity",
        value=value,
        missing_strata=() if watermarked else ("watermarked",),
        rank_pvalue=0.2,
        members={s: {f"{s}{i}": x for i, x in enumerate(v)} for s, v in groups.items()},
        references={f"r{i}": x for i, x in enumerate(references)},
        image_level=None,
    )


CLAIM = ClaimRecord(
    sha256="c",
    victim=VictimRecord(sha256="v", architecture="tiny", dim=4),
    panel=(),
    references=(),
    dropped=(),
    watermark=False,
    probes={},
    image_size=(1, 8, 8),
    redaction=(),
    seal=None,
)
SUSPECT = SuspectRecord(name="s", format="onnx", sha256="d", size_bytes=1, architecture=None, dim=4)
QUALITY = ProbeQuality(
    public=300, duplicates=0, rotated=200, mislabeled_rotations=0, private=0, shared_private=0, separability=None
)


BAD = Problem(code=ProblemCode.NOT_FINITE, detail="bad")


def report(*results: TestResult, **changes: Any) -> Report:
    """Return a report of these tests; `changes` are of its findings."""
    findings = Findings(
        plan=Plan(interim_queries=(), interim_alpha_shares=()),
        claim=CLAIM,
        suspect=SUSPECT,
        results=results,
        queries=100,
        probe_quality=QUALITY,
    )
    options, command = AuditOptions(preprocessings=("none",)), "turnmark audit s --claim c"
    return Report(findings=replace(findings, **changes), options=options, versions={"python": "3"}, command=command)


def changed(of: Report, **changes: Any) -> Report:
    """Return a report with other findings."""
    return replace(of, findings=replace(of.findings, **changes))


LOW = [0.0, 0.1, 0.2, 0.3, 0.15]
FAR, NEAR = 4.0, 0.25


def against_small(name: str, value: float, references: tuple[float, ...] = (1.0, 3.15)) -> TestResult:
    """A test against a panel that has none of the victim's size; mean of the nearer stratum 0.15, closest copy 3.15."""
    r = result(name, value, LOW, None, references)
    members = {"small": r.members["plain"], "public": {f"p{i}": x - 1.15 for i, x in enumerate(LOW)}}
    return replace(r, members=members, missing_strata=("plain", "watermarked"))


def simulated(name: str, value: float, strata: dict[str, NDArray[np.float64]]) -> TestResult:
    """Return the result of a test whose panel was drawn: `strata` holds the members' scores."""
    return TestResult(
        name=name,
        family="watermark" if name.startswith("watermark") else "distance",
        title=name,
        null_hypothesis="H0",
        alternative="greater",
        scale="identity",
        value=value,
        missing_strata=(),
        rank_pvalue=0.5,
        members={s: {f"{s}{i}": float(v) for i, v in enumerate(x)} for s, x in strata.items()},
        references={},
        image_level=None,
    )
