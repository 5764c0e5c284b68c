"""What a claim can find, said before any dispute: power of the deciding tests, from its reference surrogates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ownership.claims.claim import Claim
from ownership.claims.strata import strata_scores
from ownership.errors import ClaimError
from ownership.evidence.statistics import SCALES, STATISTICS, score_members, score_others
from ownership.stats import Alternative, CaseControlResult, case_control_power, case_control_test, members_needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """How surely one deciding test would find a theft like one reference surrogate.

    A theft like it: a suspect whose score is normal about the reference's, with the spread of the stratum.
    Probabilities are of p < alpha / (number of deciding tests), the first step of Holm, against the stratum where that
    is least likely; the other strata and "beyond every member" can only lower it.
    """

    statistic: str
    reference: str
    stratum: str  # the one that decides
    members: int  # of it
    effect_size: float  # (reference - mean) / sd of the stratum, on the test's scale
    power: float
    interval: tuple[float, float]  # from the 95 % interval of the effect size: one panel does not fix it exactly
    members_needed: int | None  # of each stratum, for the wanted power; None: more than 200


def claim_power(claim: Claim, *, wanted: float = 0.9) -> list[Power]:
    """Returns the power of every deciding test against every reference surrogate.

    Args:
        claim: with reference surrogates; without them there is nothing to go by, and the list is empty.
        wanted: power for `members_needed`.
    """
    runnable = [name for name in claim.plan.primary if strata_scores(STATISTICS[name], claim)]
    alpha = claim.plan.final_alpha / max(1, len(runnable))
    out = []
    for name in runnable:
        forward, _ = SCALES[STATISTICS[name].scale]
        alternative, least = STATISTICS[name].alternative, STATISTICS[name].least_sd
        groups = strata_scores(STATISTICS[name], claim)
        for reference, value in claim.reference_scores.get(name, {}).items():
            try:
                tests = {
                    stratum: case_control_test(
                        forward(value), [forward(x) for x in by_name.values()], alternative, least_sd=least
                    )
                    for stratum, by_name in groups.items()
                }
            except ClaimError:  # all members of a stratum score alike: an audit leaves this test out, too
                continue
            out.append(_power(name, reference, tests, alternative, alpha, wanted))
    return out


def _power(
    name: str,
    reference: str,
    tests: dict[str, CaseControlResult],
    alternative: Alternative,
    alpha: float,
    wanted: float,
) -> Power:
    sign = 1 if alternative == "greater" else -1

    def found(stratum: str, effect: float) -> float:
        return case_control_power(sign * effect, tests[stratum].n, alpha)

    weakest = min(tests, key=lambda s: found(s, tests[s].effect_size))
    worst = tests[weakest]
    bounds = sorted(found(weakest, effect) for effect in worst.confidence_interval)
    needed = [members_needed(sign * t.effect_size, alpha, wanted) for t in tests.values()]
    return Power(
        statistic=name,
        reference=reference,
        stratum=weakest,
        members=worst.n,
        effect_size=worst.effect_size,
        power=found(weakest, worst.effect_size),
        interval=(bounds[0], bounds[1]),
        members_needed=None if None in needed else max(n for n in needed if n is not None),
    )


def power_by_probes(claim: Claim, counts: Sequence[int], *, wanted: float = 0.9) -> dict[int, list[Power]]:
    """Returns the same with only the first so many public probes (and twice as many watermark probes at most).

    Scores of panel and references are computed anew from the representations in the claim. Descriptive: it says how
    many queries an audit would need, and changes nothing in the claim.
    """
    return {n: claim_power(_with_probes(claim, n), wanted=wanted) for n in counts}


def _with_probes(claim: Claim, n: int) -> Claim:
    sizes = {"public": n, "watermark": 2 * n}
    if "rotated" in claim.probes and n * claim.plan.n_rotations >= len(claim.probes["rotated"]):
        sizes["rotated"] = len(claim.probes["rotated"])
    context, names = claim.context.first(sizes), claim.plan.primary
    references = [claim.responses[m.name].first(sizes) for m in claim.references]
    return replace(
        claim, scores=score_members(context, names), reference_scores=score_others(references, context, names)
    )
