"""Alternative explanations of a similarity to the victim, each with what the panel says about it, as codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ownership.plan import REQUIRED_STRATA, ROTATION_INVARIANT_STRATA, SMALL_OR_PUBLIC_STRATA, STRATA
from ownership.verdict.findings import KEY_TEST, TWINS_TEST, Findings
from ownership.verdict.rule import Decision, Evidence, Verdict

SAME_DATA, UNPUBLISHED_CHECKPOINT, CHANCE = "same_data", "unpublished_checkpoint", "chance"
"""Explanations beside the strata of the panel, which go by their names."""


class ExplanationFinding(StrEnum):
    """What the panel says about an explanation."""

    SET_APART = "set_apart"  # a primary test sets the suspect apart from the panel's encoders of this kind
    NOT_SET_APART = "not_set_apart"
    NOT_REPRESENTED = "not_represented"  # the panel has no encoders of this kind, or of a required kind weak ones
    NOT_TESTED = "not_tested"  # the panel has some, and no primary test was made against them


class Consequence(StrEnum):
    """What follows for the rule where the panel has no encoders of a kind."""

    NOT_EXCLUDED = "not_excluded"
    TWO_FAMILIES = "two_families"  # tests of two families must reject
    RELATIVE_SIMILARITY = "relative_similarity"  # the suspect must be close to the owner's reference surrogates
    ROTATED_NOT_ALONE = "rotated_not_alone"  # the test on rotated images cannot decide alone
    IF_FINE_TUNED = "if_fine_tuned"  # not excluded if the victim was fine-tuned from a public checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One alternative explanation."""

    name: str  # a stratum, or SAME_DATA, UNPUBLISHED_CHECKPOINT, CHANCE
    members: int  # number of panel members that represent it
    finding: ExplanationFinding
    consequence: Consequence | None = None  # of NOT_REPRESENTED
    pvalues: dict[str, float] = field(default_factory=dict)  # primary test -> p-value, unadjusted but for CHANCE
    set_apart_by: tuple[str, ...] = ()  # tests that set the suspect apart


def explanations_of(findings: Findings, decision: Decision) -> tuple[Explanation, ...]:
    """Return the explanations considered: each stratum, the same data, an unpublished checkpoint, chance."""
    found = _explanations(findings, decision)
    exact = {Evidence.KEY: KEY_TEST, Evidence.TWINS: TWINS_TEST}
    if by := tuple(exact[e] for e in decision.evidence if e in exact):
        return tuple(e if e.name == CHANCE else _by_exact_tests(e, by) for e in found)
    if findings.claim.key is not None and not findings.claim.panel:  # none was asked for: the key test needs none
        return tuple(e for e in found if e.name == CHANCE)
    return tuple(found)


def _by_exact_tests(of: Explanation, by: tuple[str, ...]) -> Explanation:
    """Return an explanation as the key test and that of the twins leave it: they hold for every independent encoder."""
    return replace(of, finding=ExplanationFinding.SET_APART, consequence=None, set_apart_by=(*by, *of.set_apart_by))


def _explanations(findings: Findings, decision: Decision) -> Iterator[Explanation]:
    panel = findings.claim.panel
    full_size = [s for s in REQUIRED_STRATA if s not in findings.weak_strata]
    for kind in STRATA:
        count = 0 if kind in findings.weak_strata else sum(m.kind == kind for m in panel)
        if count:
            yield _of_stratum(findings, kind, count)
        elif kind not in (*SMALL_OR_PUBLIC_STRATA, "distilled") or any(
            kind in t.missing_strata for t in findings.primary
        ):
            consequence = _consequence(kind, full_size=any(m.kind in full_size for m in panel))
            yield _not_represented(kind, consequence)
    yield _same_data(findings, {m.name for m in panel if m.trained_on_private is True})
    yield _not_represented(UNPUBLISHED_CHECKPOINT, Consequence.NOT_EXCLUDED)
    yield Explanation(
        name=CHANCE,
        members=len(panel),
        finding={
            Verdict.SUPPORTED: ExplanationFinding.SET_APART,
            Verdict.NOT_SUPPORTED: ExplanationFinding.NOT_SET_APART,
            Verdict.INCONCLUSIVE: ExplanationFinding.NOT_TESTED,
        }[decision.verdict],
        pvalues=_exact_pvalues(findings) | findings.adjusted_pvalues,
    )


def _exact_pvalues(findings: Findings) -> dict[str, float]:
    named = {KEY_TEST: findings.key, TWINS_TEST: findings.twins}
    return {name: test.adjusted_pvalue for name, test in named.items() if test is not None}


def _not_represented(name: str, consequence: Consequence) -> Explanation:
    return Explanation(name=name, members=0, finding=ExplanationFinding.NOT_REPRESENTED, consequence=consequence)


def _consequence(kind: str, *, full_size: bool) -> Consequence:
    if kind in ROTATION_INVARIANT_STRATA:
        return Consequence.ROTATED_NOT_ALONE
    if kind == "sibling":
        return Consequence.IF_FINE_TUNED
    return Consequence.TWO_FAMILIES if full_size else Consequence.RELATIVE_SIMILARITY


def _of_stratum(findings: Findings, kind: str, count: int) -> Explanation:
    tests = [t for t in findings.primary if kind in t.members]
    pvalues = {t.name: t.strata[kind].pvalue for t in tests}
    by = [t.name for t in tests if pvalues[t.name] <= findings.share and t.exceeds(t.members[kind].values())]
    return Explanation(
        name=kind,
        members=count,
        finding=_finding(tested=bool(tests), set_apart=bool(by)),
        pvalues=pvalues,
        set_apart_by=tuple(by),
    )


def _same_data(findings: Findings, names: set[str]) -> Explanation:
    if not names:
        return _not_represented(SAME_DATA, Consequence.NOT_EXCLUDED)
    scored = {t.name: [v for by in t.members.values() for n, v in by.items() if n in names] for t in findings.primary}
    by = [
        t.name for t in findings.primary if t.pvalue <= findings.share and scored[t.name] and t.exceeds(scored[t.name])
    ]
    finding = _finding(tested=any(scored.values()), set_apart=bool(by))
    return Explanation(name=SAME_DATA, members=len(names), finding=finding, set_apart_by=tuple(by))


def _finding(*, tested: bool, set_apart: bool) -> ExplanationFinding:
    if not tested:
        return ExplanationFinding.NOT_TESTED
    return ExplanationFinding.SET_APART if set_apart else ExplanationFinding.NOT_SET_APART
