"""A claim in words: what it holds and what it can find."""

from __future__ import annotations

from ownership.claims.claim import Claim
from ownership.claims.redaction import redaction_lines
from ownership.claims.seal import seal_lines
from ownership.claims.strata import strata_scores
from ownership.evidence.statistics import SCALES, STATISTICS
from ownership.io.text import printable
from ownership.plan import MIN_RELATIVE_SIMILARITY, REQUIRED_STRATA, ROTATION_INVARIANT_STRATA, STRATA
from ownership.stats import composite_threshold


def describe(claim: Claim) -> list[str]:
    """Returns lines that explain a claim to its owner; nothing of the key is in them."""
    plan = claim.plan
    counts = {kind: len(claim.stratum(kind)) for kind in STRATA}
    lines = [
        f"victim      {claim.victim.architecture or 'unknown architecture'}, {claim.victim.dim} numbers an answer,"
        f" SHA-256 {claim.victim.sha256}",
        f"watermark   {_said_of_mark(claim)}",
        "panel       " + ", ".join(f"{n} {kind}" for kind, n in counts.items() if n),
        "probes      " + ", ".join(f"{len(x)} {name.replace('_', ' ')}" for name, x in sorted(claim.probes.items())),
        f"plan        {' and '.join(plan.primary)} decide, {plan.correction.title()}, alpha {plan.alpha:g}, "
        f"rule {plan.rule}, seed {plan.seed}"
        + (f"; looks after {' and '.join(map(str, claim.interim_scores))} queries" if claim.interim_scores else ""),
    ]
    lines += [f"            left out: {printable(d)}" for d in claim.dropped]
    lines += redaction_lines(claim.redaction)
    lines += [f"seal        {line}" for line in seal_lines(None if claim.seal is None else claim.seal.to_dict())]
    must = "deciding tests of two families must reject"
    if not any(counts[kind] for kind in REQUIRED_STRATA):
        must = f"a suspect must come {MIN_RELATIVE_SIMILARITY:g} of the way from the panel to the closest reference surrogate"
        if not claim.references:
            lines.append("warning     no reference surrogates: with this panel no audit can support anything")
    lines += [
        f"warning     no {kind} members: that innocent explanation is not excluded, and {must}"
        for kind in REQUIRED_STRATA
        if not counts[kind]
    ]
    absent = [kind for kind in ROTATION_INVARIANT_STRATA if not counts[kind]]
    if absent:
        lines.append(
            f"note        no {' and no '.join(absent)} members (turnmark panel trains them): the test that finds "
            "thieves who train the mark away cannot decide alone"
        )
    if len(claim.probes["public"]) < plan.min_probes:
        few = f"{len(claim.probes['public'])} public probes, below {plan.min_probes}"
        lines.append(f"warning     {few}: all audits are inconclusive")
    found = False
    for name in plan.primary:
        groups = strata_scores(STATISTICS[name], claim)
        if not groups:
            lines.append(f"{name}: cannot run with this claim")
            continue
        forward, back = SCALES[STATISTICS[name].scale]
        scaled = [[forward(v) for v in by_name.values()] for by_name in groups.values()]
        least = STATISTICS[name].least_sd
        limit = back(composite_threshold(scaled, plan.final_alpha / len(plan.primary), least_sd=least))
        reached = claim.reference_scores.get(name, {})
        found |= any(v > limit for v in reached.values())
        shown = ", ".join(f"{n.removeprefix('reference_')} {v:.3f}" for n, v in reached.items()) or "none made"
        lines.append(f"{name}: threshold {limit:.3f}; reference surrogates: {shown}")
    called = left_out(claim)
    lines.append(
        f"left out    {len(called)} of {len(claim.members)} members would be called copies, each against the others"
        + (f": {', '.join(map(printable, called))}" if called else "")
        + " (descriptive: the panel judges itself here)"
    )
    if claim.references:
        lines.append(
            "power       at least one reference surrogate is beyond a threshold: this claim can find a theft"
            if found
            else "warning     no reference surrogate reaches a threshold: audits that find nothing will be inconclusive"
        )
    return lines


def _said_of_mark(claim: Claim) -> str:
    if claim.key is None:
        return "none: no watermark evidence" if claim.predictor is None else "yes, its key is withheld"
    return "yes, the key is in the claim"


def left_out(claim: Claim) -> list[str]:
    """Returns the members that a deciding test would reject, each tested against the panel without it.

    Descriptive: members are no test models, they made the thresholds. A member that stands out here says that its
    stratum holds several kinds.
    """
    called = set()
    level = claim.plan.final_alpha / len(claim.plan.primary)
    for name in claim.plan.primary:
        statistic = STATISTICS[name]
        forward, _ = SCALES[statistic.scale]
        groups = strata_scores(statistic, claim)
        for member in {m for by_name in groups.values() for m in by_name}:
            value = next(by_name[member] for by_name in groups.values() if member in by_name)
            others = [[forward(v) for n, v in by_name.items() if n != member] for by_name in groups.values()]
            if forward(value) > composite_threshold(others, level, least_sd=statistic.least_sd):
                called.add(member)
    return sorted(called)
