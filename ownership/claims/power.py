"""The power of a claim: how likely its primary tests are to reject for surrogates like its references."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from ownership.claims.claim import Claim
from ownership.claims.strata import ControlScores, control_scores
from ownership.errors import ClaimError
from ownership.evidence.statistics import score_members, score_others
from ownership.stats import CaseControlResult, case_control_power, members_needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """The power of one primary test against suspects like one reference surrogate.

    The model: the score of such a suspect is normal about the reference's score, with the standard deviation of the
    stratum. The test rejects if p < alpha / (number of primary tests), the first step of Holm's procedure. The stratum
    in which this is least likely is reported, of those that count; the other strata, and the rule that a suspect must
    exceed every member, can only lower the power further.

    Attributes:
        statistic: Name of the test.
        reference: Name of the reference surrogate.
        stratum: The stratum with the smallest power.
        members: Number of its members.
        effect_size: (reference - mean) / standard deviation of the stratum, on the test's scale.
        power: The power.
        interval: The power at the bounds of the 95 % confidence interval of the effect size.
        members_needed: Members that each stratum needs for the target power; None: more than 200.
    """

    statistic: str
    reference: str
    stratum: str
    members: int
    effect_size: float
    power: float
    interval: tuple[float, float]
    members_needed: int | None


def claim_power(claim: Claim, *, weak: Collection[str] = (), wanted: float = 0.9) -> list[Power]:
    """Return the power of every primary test against every reference surrogate.

    Args:
        claim: The claim. Without reference surrogates the list is empty.
        weak: Strata that do not count in the verdict (docs/statistics.md, "The strength of the panel"). A test that is
            left without a stratum has no power to report.
        wanted: The power for which `members_needed` is computed.
    """
    runnable = [controls for name in claim.plan.primary if (controls := control_scores(claim, name)).strata]
    alpha = claim.plan.final_alpha / max(1, len(runnable))
    out = []
    for controls in runnable:
        for reference, score in claim.panel_scores.references.get(controls.statistic.name, {}).items():
            try:
                tests = controls.tests(score)
            except ClaimError:  # all members of a stratum score alike: an audit skips this test, too
                continue
            tests = {stratum: test for stratum, test in tests.items() if stratum not in weak}
            if not tests:
                continue
            out.append(_power(controls, reference, tests, alpha, wanted))
    return out


def _power(
    controls: ControlScores, reference: str, tests: Mapping[str, CaseControlResult], alpha: float, wanted: float
) -> Power:
    sign = 1 if controls.statistic.alternative == "greater" else -1

    def power(stratum: str, effect: float) -> float:
        return case_control_power(sign * effect, tests[stratum].n, alpha)

    weakest = min(tests, key=lambda s: power(s, tests[s].effect_size))
    worst = tests[weakest]
    bounds = sorted(power(weakest, effect) for effect in worst.confidence_interval)
    needed = [members_needed(sign * t.effect_size, alpha, wanted) for t in tests.values()]
    return Power(
        statistic=controls.statistic.name,
        reference=reference,
        stratum=weakest,
        members=worst.n,
        effect_size=worst.effect_size,
        power=power(weakest, worst.effect_size),
        interval=(bounds[0], bounds[1]),
        members_needed=None if None in needed else max(n for n in needed if n is not None),
    )


def power_by_probes(
    claim: Claim, counts: Sequence[int], *, weak: Collection[str] = (), wanted: float = 0.9
) -> dict[int, list[Power]]:
    """Return the power of audits that use fewer probes.

    The scores of panel and references are computed again from the representations in the claim. The result tells how
    many queries an audit needs; the claim stays as it is.

    Args:
        claim: The claim.
        counts: Numbers of public probes; at most twice as many watermark probes are used.
        weak: Strata that do not count in the verdict.
        wanted: The power for which `members_needed` is computed.
    """
    return {n: claim_power(_with_probes(claim, n), weak=weak, wanted=wanted) for n in counts}


def _with_probes(claim: Claim, n: int) -> Claim:
    sizes = {"public": n, "watermark": 2 * n}
    if "rotated" in claim.probes and n * claim.plan.n_rotations >= len(claim.probes["rotated"]):
        sizes["rotated"] = len(claim.probes["rotated"])
    context, names = claim.context.first(sizes), claim.plan.primary
    references = [claim.responses[m.name].first(sizes) for m in claim.references]
    return replace(
        claim,
        scored=replace(
            claim.panel_scores,
            members=score_members(context, names),
            references=score_others(references, context, names),
        ),
    )
