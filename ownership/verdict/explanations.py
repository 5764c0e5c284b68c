"""The innocent explanations of a likeness, each with what the panel says about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ownership.plan import REQUIRED_STRATA, ROTATION_INVARIANT_STRATA
from ownership.stats import format_p
from ownership.verdict.rule import Verdict

if TYPE_CHECKING:
    from ownership.reports.report import Report
    from ownership.verdict.results import TestResult

SET_APART, ALIKE, ABSENT, UNTESTED = "set apart", "not set apart", "not represented", "not tested"
"""A deciding test sets the suspect apart from the panel's encoders of this kind, or not; or there are none."""

KINDS = {
    "plain": "Independence: an ordinary encoder, trained by somebody else",
    "watermarked": "A watermark of somebody else",
    "sibling": "The same public checkpoint: suspect and victim both grew from it",
    "rotation_invariant": "Training on turned images, by which any encoder comes to answer alike however an image is turned",
    "distilled": "Another teacher: taught to answer an image, however it is turned, as an independent encoder answers it "
    "upright",
    "small": "Less capacity and training than the victim's",
    "public": "Publication: the suspect is, or grew from, an encoder published by others",
}
"""Stratum -> the explanation that its members stand for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One innocent explanation."""

    name: str
    title: str
    members: int  # of the panel, that stand for it
    finding: str  # SET_APART, ALIKE, ABSENT, UNTESTED
    said: str  # the same in a sentence
    pvalues: dict[str, float]  # deciding test -> p against the stratum, unadjusted; empty where there is none

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON-ready values."""
        return asdict(self)


def explanations_of(report: Report) -> tuple[Explanation, ...]:
    """Returns the innocent explanations considered: the strata, the same data, an unpublished ancestor, chance."""
    return tuple(_explanations(report))


def _explanations(report: Report) -> Iterator[Explanation]:
    panel = report.claim["panel"]
    for kind, title in KINDS.items():
        count = sum(m["kind"] == kind for m in panel)
        if count:
            yield _of_stratum(report, kind, title, count)
        elif kind not in ("small", "public", "distilled") or any(kind in t.missing_strata for t in report.primary):
            said = _why_absent(kind, peers=any(m["kind"] in REQUIRED_STRATA for m in panel))
            yield Explanation(name=kind, title=title, members=0, finding=ABSENT, said=said, pvalues={})
    yield _same_data(report, {m["name"] for m in panel if m["trained_on_private"] is True})
    yield Explanation(
        name="unpublished ancestor",
        title="A common ancestor that was never published",
        members=0,
        finding=ABSENT,
        said="no panel can hold what nobody published: not excluded; who had access to the victim's ancestors has to "
        "be shown otherwise",
        pvalues={},
    )
    yield _chance(report)


def _why_absent(kind: str, *, peers: bool) -> str:
    if kind in ROTATION_INVARIANT_STRATA:
        return "not represented in the panel: the test on turned images cannot decide alone"
    if kind == "sibling":
        return "not represented in the panel: not excluded if the victim grew from a public checkpoint"
    more = "two tests must agree" if peers else "the suspect must come close to the owner's own copies"
    return f"NOT represented in the panel: not excluded; {more}"


def _of_stratum(report: Report, kind: str, title: str, count: int) -> Explanation:
    tests = [t for t in report.primary if kind in t.members]
    pvalues = {t.name: t.strata[kind].pvalue for t in tests}
    by = [t for t in tests if pvalues[t.name] <= report.share and _beyond(t, list(t.members[kind].values()))]
    shown = "; ".join(f"{t.title}: p {format_p(pvalues[t.name])}" for t in tests)
    if not tests:
        finding, said = UNTESTED, "no deciding test could be made against them"
    elif by:
        finding, said = SET_APART, f"the suspect stands out from them and lies beyond each of them ({shown})"
    else:
        finding, said = ALIKE, f"the suspect does not stand out from them ({shown})"
    represented = f"represented by {count} panel members: {said}"
    return Explanation(name=kind, title=title, members=count, finding=finding, said=represented, pvalues=pvalues)


def _same_data(report: Report, names: set[str]) -> Explanation:
    scored = {t.name: [v for by in t.members.values() for n, v in by.items() if n in names] for t in report.primary}
    standing_out = [t for t in report.primary if t.pvalue <= report.share]
    beyond = [t for t in standing_out if scored[t.name] and _beyond(t, scored[t.name])]
    if not names:
        finding, said = ABSENT, "not represented in the panel: not excluded"
    elif not any(scored.values()):
        finding, said = UNTESTED, f"represented by {len(names)} panel members: no deciding test could be made"
    else:
        finding = SET_APART if beyond else ALIKE
        by = ", ".join(t.title for t in beyond)
        said = (
            f"the suspect stands out and lies beyond each of them ({by})"
            if beyond
            else "the suspect does not stand out"
        )
        said = f"represented by {len(names)} panel members: {said}"
    return Explanation(
        name="same data",
        title="The same data: an independent encoder trained on the victim's own images",
        members=len(names),
        finding=finding,
        said=said,
        pvalues={},
    )


def _chance(report: Report) -> Explanation:
    rate = f"{100 * report.error_rate:g} %"
    said = f"the rule calls an independent encoder of the panel's kinds a copy in at most {rate} of audits"
    if report.auditor_panel:
        said += f"; of the auditor's own independent encoders, {len(report.auditor_positives)} of {len(report.auditor_panel)}"
    verdict = report.verdict
    finding = {Verdict.SUPPORTED: SET_APART, Verdict.NOT_SUPPORTED: ALIKE}.get(verdict, UNTESTED)
    return Explanation(
        name="chance",
        title="Chance",
        members=len(report.claim["panel"]),
        finding=finding,
        said=said,
        pvalues=report.adjusted_pvalues,
    )


def _beyond(test: TestResult, values: list[float]) -> bool:
    return all(test.value > v if test.alternative == "greater" else test.value < v for v in values)
